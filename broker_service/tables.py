"""The tables that this service owns, and the columns of other tables that it may read."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA_REVISION = "0046"

metadata = sa.MetaData()

certificates = sa.Table(
    "certificates",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("pem", sa.Text, nullable=False),
    sa.Column("private_key_encrypted", sa.LargeBinary),
    sa.Column("fingerprint_sha256", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
    sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    # The certificate that replaces this one; null unless a rotation is in progress.
    sa.Column("replacement_id", sa.ForeignKey("certificates.id")),
    sa.Column("rotation_began_at", sa.DateTime(timezone=True)),
    sa.Column("rotation_threshold_percent", sa.SmallInteger),
    sa.UniqueConstraint("kind", "fingerprint_sha256"),
    sa.Index(
        "certificates_replacement",
        "replacement_id",
        postgresql_where=sa.text("replacement_id IS NOT NULL"),
    ),
)

brokers = sa.Table(
    "mqtt_broker_config",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("protocol", sa.Text, nullable=False, server_default="mqtt"),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("path", sa.Text, nullable=False, server_default=""),
    sa.Column("use_tls", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("verify_certificate", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("client_id_prefix", sa.Text, nullable=False, server_default="mooring"),
    sa.Column("keep_alive", sa.Integer, nullable=False, server_default="60"),
    sa.Column("clean_session", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("reconnect_period", sa.Integer, nullable=False, server_default="1000"),
    sa.Column("connect_timeout", sa.Integer, nullable=False, server_default="30000"),
    sa.Column("ca_certificate_id", sa.ForeignKey("certificates.id")),
    sa.Column("client_certificate_id", sa.ForeignKey("certificates.id")),
    sa.Column("username", sa.Text),
    sa.Column("password_encrypted", sa.LargeBinary),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("region", sa.Text, nullable=False, server_default=""),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.Column(
        "updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.Column("labels", JSONB, nullable=False, server_default="{}"),
    sa.Column("management", sa.Text, nullable=False, server_default=""),
    sa.Column("management_url", sa.Text, nullable=False, server_default=""),
    # The broker that serves while this one is down, if no pool is in charge.
    sa.Column("backup_broker_id", sa.ForeignKey("mqtt_broker_config.id")),
    # How many devices may get it as their home; null for any number.
    sa.Column("capacity", sa.BigInteger),
    sa.Index(
        "mqtt_broker_config_backup",
        "backup_broker_id",
        postgresql_where=sa.text("backup_broker_id IS NOT NULL"),
    ),
    sa.Index(
        "at_most_one_default",
        "is_default",
        unique=True,
        postgresql_where=sa.text("is_default"),
    ),
    sa.Index("mqtt_broker_config_ca", "ca_certificate_id"),
    sa.Index("mqtt_broker_config_client", "client_certificate_id"),
)

pools = sa.Table(
    "pools",
    metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("policy", sa.Text, nullable=False, server_default="weighted"),
    sa.Column("is_sticky", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.false()),
    # A rebalancing moves the devices that it has reached (domain/waves.py); null if there is none.
    sa.Column("rebalance_percent", sa.Numeric(5, 2, asdecimal=False)),
    sa.Column("rebalance_salt", sa.Text),
    # The member that each slot begins with (domain/pools.py); the database keeps it.
    sa.Column("slots", sa.ARRAY(sa.Integer), nullable=False, server_default="{}"),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.Column(
        "updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.UniqueConstraint("name", name="pools_name_key"),
    sa.Index(
        "at_most_one_default_pool",
        "is_default",
        unique=True,
        postgresql_where=sa.text("is_default"),
    ),
)

pool_members = sa.Table(
    "pool_members",
    metadata,
    sa.Column("pool_id", sa.ForeignKey("pools.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("broker_id", sa.ForeignKey("mqtt_broker_config.id"), primary_key=True),
    sa.Column("weight", sa.Integer, nullable=False, server_default="100"),
    sa.Column("priority", sa.Integer, nullable=False, server_default="1"),
    sa.Index("pool_members_broker", "broker_id"),
)

# One row for each revision. Rows stay when the pool is deleted.
pool_history = sa.Table(
    "pool_history",
    metadata,
    sa.Column("pool_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column(
        "changed_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("by_sql", sa.Boolean, nullable=False),
    # The columns and the members; null if the pool was deleted.
    sa.Column("state", JSONB),
)

regions = sa.Table(
    "regions",
    metadata,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, server_default=""),
    sa.Column("latitude", sa.Double),
    sa.Column("longitude", sa.Double),
    # What serves its devices; both are null if it names nothing.
    sa.Column("mqtt_broker_id", sa.ForeignKey("mqtt_broker_config.id")),
    sa.Column("pool_id", sa.ForeignKey("pools.id")),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    ),
    sa.Index(
        "regions_broker",
        "mqtt_broker_id",
        postgresql_where=sa.text("mqtt_broker_id IS NOT NULL"),
    ),
    sa.Index("regions_pool", "pool_id", postgresql_where=sa.text("pool_id IS NOT NULL")),
)

# What the probes found. A broker without a row is usable.
broker_states = sa.Table(
    "broker_states",
    metadata,
    sa.Column(
        "broker_id",
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("state", sa.Text, nullable=False, server_default="unknown"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("is_full", sa.Boolean, nullable=False, server_default=sa.false()),
    # The share of its devices that have come back after it was down, in the order of the salt.
    sa.Column(
        "returning_percent",
        sa.Numeric(5, 2, asdecimal=False),
        nullable=False,
        server_default="100",
    ),
    sa.Column("salt", sa.Text, nullable=False, server_default=""),
)

# The last result of the probes of a broker, for each place from which it is probed.
broker_last_probes = sa.Table(
    "broker_last_probes",
    metadata,
    sa.Column(
        "broker_id",
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("vantage", sa.Text(collation="C"), primary_key=True),
    sa.Column("probed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("latency_ms", sa.REAL),
)

# The results in periods of five minutes.
broker_probes = sa.Table(
    "broker_probes",
    metadata,
    sa.Column(
        "broker_id",
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("vantage", sa.Text(collation="C"), primary_key=True),
    sa.Column("begins_at", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("probes", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("round_trips", sa.Integer, nullable=False),
    sa.Column("mean_latency_ms", sa.REAL),
    sa.Column("max_latency_ms", sa.REAL),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Index("broker_probes_begins_at", "begins_at"),
)

# Every change of a broker's state; a trigger writes it.
broker_state_history = sa.Table(
    "broker_state_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column(
        "broker_id", sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column(
        "changed_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("was", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("broker_state_history_broker", "broker_id", "id"),
    sa.Index("broker_state_history_changed_at", "changed_at"),
)

# One row. While it is frozen, states stay as they are.
health_control = sa.Table(
    "health_control",
    metadata,
    sa.Column("is_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("is_frozen", sa.Boolean, nullable=False, server_default=sa.false()),
    # When states were written last.
    sa.Column("written_at", sa.DateTime(timezone=True), nullable=False, server_default="-infinity"),
)

# Managed brokers that the address policy allows at these addresses only because they were there
# before it. Only migrations write this table.
local_brokers_kept = sa.Table(
    "local_brokers_kept",
    metadata,
    sa.Column(
        "broker_id",
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("endpoint", sa.Text, nullable=False),
)

# One row, renewed by every change of brokers, certificates or fleets.
placement_version = sa.Table(
    "placement_version",
    metadata,
    sa.Column("is_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("version", sa.Uuid, nullable=False, server_default=sa.func.gen_random_uuid()),
)

# The changes of brokers, certificates and fleets that renewed the version: a row for each
# statement, in the order of the commits. Only the last rows are kept.
placement_changes = sa.Table(
    "placement_changes",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("version", sa.Uuid, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("ids", sa.ARRAY(sa.Text)),
)

history = sa.Table(
    "mqtt_broker_history",
    metadata,
    sa.Column("broker_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column(
        "changed_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("by_sql", sa.Boolean, nullable=False),
    sa.Column("state", JSONB),
    sa.Column("password_encrypted", sa.LargeBinary),
    sa.Column("ca_certificate_id", sa.ForeignKey("certificates.id")),
    sa.Column("client_certificate_id", sa.ForeignKey("certificates.id")),
    sa.Index("mqtt_broker_history_ca", "ca_certificate_id"),
    sa.Index("mqtt_broker_history_client", "client_certificate_id"),
)

# A table of the registry. Only these columns are granted.
devices = sa.table(
    "devices",
    sa.column("id", sa.BigInteger),
    sa.column("uuid", sa.Text),
    sa.column("mqtt_broker_id", sa.Integer),
    sa.column("pool_id", sa.Integer),
    sa.column("home_broker_id", sa.Integer),
    sa.column("fleet_id", sa.Text),
    sa.column("region", sa.Text),
    sa.column("latitude", sa.Double),
    sa.column("longitude", sa.Double),
    sa.column("is_active", sa.Boolean),
    sa.column("told_broker_ids", sa.ARRAY(sa.Integer)),
    sa.column("told_ca_ids", sa.ARRAY(sa.Integer)),
)
fleets = sa.table(
    "fleets",
    sa.column("id", sa.Text),
    sa.column("mqtt_broker_id", sa.Integer),
    sa.column("pool_id", sa.Integer),
    sa.column("is_restricted", sa.Boolean),
    sa.column("revision", sa.BigInteger),
    sa.column("rollout_broker_id", sa.Integer),
    sa.column("rollout_percent", sa.Numeric(5, 2, asdecimal=False)),
    sa.column("rollout_salt", sa.Text),
)
fleet_brokers = sa.table(
    "fleet_brokers",
    sa.column("fleet_id", sa.Text),
    sa.column("broker_id", sa.Integer),
)

# The numbers of devices of each kind, and the changes that are not added yet.
device_counts, device_count_changes = (
    sa.table(
        name,
        sa.column("fleet_id", sa.Text),
        sa.column("mqtt_broker_id", sa.Integer),
        sa.column("told_broker_id", sa.Integer),
        sa.column("told_source", sa.Text),
        sa.column("told_ca_ids", sa.ARRAY(sa.Integer)),
        sa.column("devices", sa.BigInteger),
    )
    for name in ("device_counts", "device_count_changes")
)

# A view of what devices report of each broker.
broker_reports = sa.table(
    "broker_reports",
    sa.column("broker_id", sa.Integer),
    sa.column("failing_devices", sa.BigInteger),
    sa.column("failing_fleets", sa.BigInteger),
    sa.column("connected_devices", sa.BigInteger),
)
