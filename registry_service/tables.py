"""The tables this service owns."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import CIDR, INT8MULTIRANGE, JSONB

SCHEMA_REVISION = "0046"

metadata = sa.MetaData()


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    )


def _updated_at() -> sa.Column[object]:
    return sa.Column(
        "updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
    )


fleets = sa.Table(
    "fleets",
    metadata,
    sa.Column("id", sa.Text(collation="C"), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("mqtt_broker_id", sa.Integer, sa.ForeignKey("mqtt_broker_config.id")),
    sa.Column("is_restricted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    _created_at(),
    _updated_at(),
    sa.Column("rollout_broker_id", sa.Integer, sa.ForeignKey("mqtt_broker_config.id")),
    sa.Column("rollout_percent", sa.Numeric(5, 2, asdecimal=False)),
    sa.Column("rollout_salt", sa.Text),
    sa.Column("rollout_began_at", sa.DateTime(timezone=True)),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    # The prefix of its devices' uuids, reserved for this fleet; null for any.
    sa.Column("uuid_prefix", sa.Text(collation="C")),
    sa.Column("pool_id", sa.Integer, sa.ForeignKey("pools.id")),
    sa.Index("fleets_pool", "pool_id", postgresql_where=sa.text("pool_id IS NOT NULL")),
    sa.Index(
        "fleets_uuid_prefix",
        "uuid_prefix",
        unique=True,
        postgresql_where=sa.text("uuid_prefix IS NOT NULL"),
    ),
    sa.Index(
        "fleets_broker",
        "mqtt_broker_id",
        postgresql_where=sa.text("mqtt_broker_id IS NOT NULL"),
    ),
    sa.Index(
        "fleets_rollout",
        "rollout_broker_id",
        postgresql_where=sa.text("rollout_broker_id IS NOT NULL"),
    ),
)

fleet_brokers = sa.Table(
    "fleet_brokers",
    metadata,
    sa.Column(
        "fleet_id",
        sa.Text(collation="C"),
        sa.ForeignKey("fleets.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("broker_id", sa.Integer, sa.ForeignKey("mqtt_broker_config.id"), primary_key=True),
    sa.Index("fleet_brokers_broker", "broker_id"),
)

provisioning_keys = sa.Table(
    "provisioning_keys",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
    sa.Column("key_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("fleet_id", sa.Text(collation="C"), sa.ForeignKey("fleets.id"), nullable=False),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("max_devices", sa.Integer),
    sa.Column("devices_provisioned", sa.Integer, nullable=False, server_default="0"),
    sa.Column("default_broker_id", sa.Integer, sa.ForeignKey("mqtt_broker_config.id")),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    _created_at(),
    sa.Column("last_used_at", sa.DateTime(timezone=True)),
    sa.Column("allowed_device_types", sa.ARRAY(sa.Text)),
    sa.Column("source_networks", sa.ARRAY(CIDR)),
    sa.Column("allowed_uuids", sa.ARRAY(sa.Text)),
    sa.Column("uuid_prefix", sa.Text),
    sa.Column("only_expected", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    _updated_at(),
    sa.Column("default_pool_id", sa.Integer, sa.ForeignKey("pools.id")),
    sa.Index(
        "provisioning_keys_pool",
        "default_pool_id",
        postgresql_where=sa.text("default_pool_id IS NOT NULL"),
    ),
    sa.UniqueConstraint("id", "fleet_id", name="provisioning_keys_fleets"),
    sa.Index("provisioning_keys_fleet", "fleet_id"),
    sa.Index(
        "provisioning_keys_broker",
        "default_broker_id",
        postgresql_where=sa.text("default_broker_id IS NOT NULL"),
    ),
)

expected_devices = sa.Table(
    "expected_devices",
    metadata,
    sa.Column("uuid", sa.Text(collation="C"), primary_key=True),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False, unique=True),
    sa.Column("fleet_id", sa.Text(collation="C"), sa.ForeignKey("fleets.id"), nullable=False),
    sa.Column("device_name", sa.Text),
    sa.Column("device_type", sa.Text),
    sa.Column("mqtt_broker_id", sa.Integer, sa.ForeignKey("mqtt_broker_config.id")),
    sa.Column("region", sa.Text),
    sa.Column("latitude", sa.Double),
    sa.Column("longitude", sa.Double),
    _created_at(),
    sa.Column("registered_at", sa.DateTime(timezone=True)),
    sa.Index("expected_devices_fleet", "fleet_id", "uuid"),
    sa.Index("expected_devices_awaited", "uuid", postgresql_where=sa.text("registered_at IS NULL")),
    sa.Index(
        "expected_devices_awaited_fleet",
        "fleet_id",
        "uuid",
        postgresql_where=sa.text("registered_at IS NULL"),
    ),
    sa.Index(
        "expected_devices_arrived", "uuid", postgresql_where=sa.text("registered_at IS NOT NULL")
    ),
    sa.Index(
        "expected_devices_broker",
        "mqtt_broker_id",
        "uuid",
        postgresql_where=sa.text("mqtt_broker_id IS NOT NULL"),
    ),
)

devices = sa.Table(
    "devices",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("uuid", sa.Text(collation="C"), nullable=False, unique=True),
    sa.Column("device_name", sa.Text, nullable=False),
    sa.Column("device_type", sa.Text, nullable=False),
    sa.Column("fleet_id", sa.Text(collation="C"), sa.ForeignKey("fleets.id"), nullable=False),
    sa.Column("mqtt_broker_id", sa.Integer, sa.ForeignKey("mqtt_broker_config.id")),
    sa.Column("mqtt_username", sa.Text(collation="C"), nullable=False),
    sa.Column("mqtt_password_hash", sa.Text, nullable=False),
    sa.Column("credential_salt", sa.Text, nullable=False),
    sa.Column("credential_key_id", sa.Integer),
    sa.Column("api_key_hash", sa.LargeBinary),
    sa.Column("reprovisioning_allowed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("is_online", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("last_seen_at", sa.DateTime(timezone=True)),
    sa.Column("provisioned_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
    sa.Column("provisioned_by_key_id", sa.Uuid),
    sa.Column("told_broker_ids", sa.ARRAY(sa.Integer), nullable=False, server_default="{}"),
    sa.Column("told_at", sa.DateTime(timezone=True)),
    sa.Column("told_source", sa.Text, nullable=False, server_default=""),
    sa.Column("told_ca_ids", sa.ARRAY(sa.Integer), nullable=False, server_default="{}"),
    sa.Column("application_id", sa.Text, nullable=False, server_default=""),
    sa.Column("mac_address", sa.Text, nullable=False, server_default=""),
    sa.Column("os_version", sa.Text, nullable=False, server_default=""),
    sa.Column("agent_version", sa.Text, nullable=False, server_default=""),
    sa.Column("region", sa.Text, nullable=False, server_default=""),
    sa.Column("latitude", sa.Double),
    sa.Column("longitude", sa.Double),
    _created_at(),
    _updated_at(),
    sa.Column("password_algorithm", sa.Text, nullable=False, server_default="sha256"),
    # The previous password, while it is accepted.
    sa.Column("previous_password_hash", sa.Text),
    sa.Column("previous_salt", sa.Text),
    sa.Column("previous_until", sa.DateTime(timezone=True)),
    # The brokers for which the previous password was made; null if every broker that admits the
    # device accepts it.
    sa.Column("previous_broker_ids", sa.ARRAY(sa.Integer)),
    # The brokers of the answer for which the salt was made; null if they are the same as
    # `told_broker_ids`.
    sa.Column("salt_broker_ids", sa.ARRAY(sa.Integer)),
    # The address from which the device authenticated when the row was last written, in the form for
    # which failures are counted.
    sa.Column("proved_from", sa.Text),
    sa.Column("has_short_api_key", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("rotations", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rotations_since", sa.DateTime(timezone=True)),
    sa.Column("rotated_at", sa.DateTime(timezone=True)),
    # The broker that reported `is_online`, and the time of the report by its clock.
    sa.Column("presence_broker_id", sa.Integer),
    sa.Column("presence_at", sa.DateTime(timezone=True)),
    # The pool that serves it; a pinned broker comes first.
    sa.Column("pool_id", sa.Integer, sa.ForeignKey("pools.id")),
    # The member of a pool to which it belongs (domain/pools.py); it counts while it is a member.
    sa.Column("home_broker_id", sa.Integer),
    sa.ForeignKeyConstraint(
        ["provisioned_by_key_id", "fleet_id"],
        ["provisioning_keys.id", "provisioning_keys.fleet_id"],
        name="devices_provisioned_by_key_id_fkey",
    ),
    sa.Index("devices_fleet", "fleet_id", "id"),
    sa.Index("devices_rotations", "rotations_since", postgresql_where=sa.text("rotations > 1")),
    sa.Index("devices_short_api_key", "id", postgresql_where=sa.text("has_short_api_key")),
    # Built by migrations/indexes.py; that of names has the collation "C".
    sa.Index("devices_name", sa.text("lower(device_name)"), "id"),
    sa.Index("devices_type", "device_type", "id"),
    sa.Index("devices_region", "region", "id", postgresql_where=sa.text("region <> ''")),
    sa.Index("devices_told_broker", sa.text("(coalesce(told_broker_ids[1], 0))"), "id"),
    sa.Index("devices_registered", "provisioned_at", "id"),
    sa.Index("devices_inactive", "id", postgresql_where=sa.text("NOT is_active")),
    sa.Index("devices_pool", "pool_id", "id", postgresql_where=sa.text("pool_id IS NOT NULL")),
    sa.Index("devices_server_key", "credential_key_id", "id", postgresql_include=["is_active"]),
    sa.Index(
        "devices_imported_username",
        "mqtt_username",
        unique=True,
        postgresql_where=sa.text("provisioned_by_key_id IS NULL"),
    ),
    sa.Index(
        "devices_broker",
        "mqtt_broker_id",
        "id",
        postgresql_where=sa.text("mqtt_broker_id IS NOT NULL"),
    ),
    sa.Index(
        "devices_told",
        sa.text("(told_broker_ids[1])"),
        "told_ca_ids",
        "id",
        postgresql_where=sa.text("is_active AND told_ca_ids <> '{}'"),
    ),
)


# Counts of wrong device API keys in periods: for a device and an address, for a device from all
# addresses (the address is empty), from an address for all devices (the uuid is empty), and for
# attempts beyond the number of counters (both are empty).
api_key_failures = sa.Table(
    "api_key_failures",
    metadata,
    sa.Column("began_at", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("device_uuid", sa.Text(collation="C"), primary_key=True),
    sa.Column("address", sa.Text(collation="C"), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
)


def _kind() -> list[sa.Column[Any]]:
    """The columns by which devices are counted: the pin or else the fleet, and the last answer."""
    return [
        sa.Column("fleet_id", sa.Text(collation="C"), nullable=False),
        sa.Column("mqtt_broker_id", sa.Integer, nullable=False),
        sa.Column("told_broker_id", sa.Integer, nullable=False),
        sa.Column("told_source", sa.Text, nullable=False),
        sa.Column("told_ca_ids", sa.ARRAY(sa.Integer), nullable=False),
    ]


device_counts = sa.Table(
    "device_counts",
    metadata,
    *_kind(),
    sa.Column("devices", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint(
        "fleet_id", "mqtt_broker_id", "told_broker_id", "told_source", "told_ca_ids"
    ),
    sa.Index(
        "device_counts_pinned",
        "mqtt_broker_id",
        postgresql_where=sa.text("mqtt_broker_id <> 0"),
    ),
    sa.Index("device_counts_told", "told_broker_id"),
)

# Changes that triggers append, and that are not added to the counts yet.
device_count_changes = sa.Table(
    "device_count_changes",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    *_kind(),
    sa.Column("devices", sa.BigInteger, nullable=False),
)

# Registrations and refusals in minutes, hours and days, by fleet; an empty fleet stands for all.
registration_counts = sa.Table(
    "registration_counts",
    metadata,
    sa.Column("step", sa.Text(collation="C"), primary_key=True),
    sa.Column("fleet_id", sa.Text(collation="C"), primary_key=True),
    sa.Column("began_at", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("new_devices", sa.BigInteger, nullable=False),
    sa.Column("known_devices", sa.BigInteger, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),
    # A histogram: registry_service/activity/series/latency.py has its bounds.
    sa.Column("latency", sa.ARRAY(sa.BigInteger), nullable=False),
    sa.Index("registration_counts_old", "step", "began_at"),
)
refusal_counts = sa.Table(
    "refusal_counts",
    metadata,
    sa.Column("step", sa.Text(collation="C"), primary_key=True),
    sa.Column("fleet_id", sa.Text(collation="C"), primary_key=True),
    sa.Column("began_at", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("reason", sa.Text(collation="C"), primary_key=True),
    sa.Column("refusals", sa.BigInteger, nullable=False),
    sa.Index("refusal_counts_old", "step", "began_at"),
)

# What happened to devices; written by `note_device_events`. Equal events of a period share a row.
device_events = sa.Table(
    "device_events",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("device_id", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text(collation="C"), nullable=False),
    sa.Column("what", sa.Text(collation="C"), nullable=False),
    sa.Column("broker_id", sa.Integer, nullable=False),
    # Null when it was cleared; empty if it was never known.
    sa.Column("address", sa.Text(collation="C")),
    sa.Column("period", sa.DateTime(timezone=True), nullable=False),
    sa.Column("details", JSONB),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index(
        "device_events_same",
        *("device_id", "kind", "what", "broker_id", "address", "period"),
        unique=True,
    ),
    sa.Index("device_events_addresses", "last_at", postgresql_where=sa.text("address <> ''")),
)

# What devices last reported, one row for each state; written by `note_device_reports`.
device_reports = sa.Table(
    "device_reports",
    metadata,
    sa.Column("device_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text(collation="C"), primary_key=True),
    # One of the brokers that the device was told; null for any other.
    sa.Column("broker_id", sa.Integer),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("generation", sa.Text, nullable=False),
    sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index(
        "device_reports_connected",
        "broker_id",
        postgresql_where=sa.text("state = 'connected'"),
    ),
    sa.Index(
        "device_reports_failed",
        "reported_at",
        postgresql_where=sa.text("state = 'failed'"),
    ),
)

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    _created_at(),
    sa.Column("last_used_at", sa.DateTime(timezone=True)),
    sa.Column("prefix", sa.Text, nullable=False, server_default=""),
    sa.Column("fleet_ids", sa.ARRAY(sa.Text)),
    sa.Column("max_devices", sa.Integer),
    sa.Column("devices_made", sa.Integer, nullable=False, server_default="0"),
)

console_sessions = sa.Table(
    "console_sessions",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("token_id", sa.ForeignKey(api_tokens.c.id, ondelete="CASCADE"), nullable=False),
    _created_at(),
    sa.Column(
        "last_used_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.now(),
    ),
    sa.Index("console_sessions_by_token", "token_id"),
    sa.Index("console_sessions_by_last_use", "last_used_at"),
)

sign_in_codes = sa.Table(
    "sign_in_codes",
    metadata,
    sa.Column("code_hash", sa.LargeBinary, primary_key=True),
    sa.Column("token_id", sa.ForeignKey(api_tokens.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("sign_in_codes_by_token", "token_id"),
    sa.Index("sign_in_codes_by_expiry", "expires_at"),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column(
        "at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("refusal", sa.Text, nullable=False, server_default=""),
    sa.Column("count", sa.Integer, nullable=False, server_default="1"),
    sa.Column("before", JSONB),
    sa.Column("after", JSONB),
    sa.Column("details", JSONB),
    sa.Column("request_id", sa.Text, nullable=False),
    # Null in lines that are older than these two columns.
    sa.Column("session_role", sa.Text, server_default=sa.text("session_user")),
    sa.Column("ticket", sa.LargeBinary),
    sa.Index("audit_log_at", "at", "id"),
    sa.Index("audit_log_actor", "actor", "at", "id"),
    sa.Index("audit_log_actor_id", "actor_id", "at", "id"),
    sa.Index("audit_log_action", "action", "at", "id"),
    sa.Index("audit_log_noun", sa.text("split_part(action, '.', 1)"), "at", "id"),
    sa.Index("audit_log_subject", "subject", "at", "id"),
    sa.Index("audit_log_refused", "at", "id", postgresql_where=sa.text("refusal <> ''")),
)

audit_seals = sa.Table(
    "audit_seals",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("ids", INT8MULTIRANGE, nullable=False),
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("closed_id", sa.BigInteger, nullable=False),
    sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("previous_mac", sa.LargeBinary, nullable=False),
    sa.Column("key_id", sa.BigInteger, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
    sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("audit_seals_upper", sa.text("upper(ids)")),
)

audit_checks = sa.Table(
    "audit_checks",
    metadata,
    sa.Column("is_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column(
        "checked_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    ),
    sa.Column("first_seal_id", sa.BigInteger, nullable=False),
    sa.Column("last_seal_id", sa.BigInteger, nullable=False),
    sa.Column("last_mac", sa.LargeBinary, nullable=False),
    sa.Column("lines", sa.BigInteger, nullable=False),
    sa.Column("findings", JSONB, nullable=False, server_default="[]"),
)

# Rows to lock; see `take_turns` in chassis.database.
turns = sa.Table("turns", metadata, sa.Column("name", sa.Text, primary_key=True))

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="draft"),
    sa.Column("is_undo", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("failure", sa.Text, nullable=False, server_default=""),
    sa.Column("mqtt_broker_id", sa.Integer),
    sa.Column("filter", JSONB(none_as_null=True)),
    sa.Column("upload", sa.Integer, nullable=False, server_default="0"),
    sa.Column("is_uploaded", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reached", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("last_number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("handled", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("busy_s", sa.Double, nullable=False, server_default="0"),
    sa.Column("outcomes", JSONB, nullable=False, server_default="{}"),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    _created_at(),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("ticket", sa.LargeBinary),
    sa.Index("jobs_running", "id", postgresql_where=sa.text("state = 'running'")),
)

job_rows = sa.Table(
    "job_rows",
    metadata,
    sa.Column("job_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("device_uuid", sa.Text(collation="C"), nullable=False),
    sa.Column("device_id", sa.BigInteger),
    sa.Column("mqtt_broker_id", sa.Integer),
    sa.Column("previous_broker_id", sa.Integer),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Index(
        "job_rows_uuid",
        "job_id",
        "device_uuid",
        postgresql_where=sa.text("device_id IS NULL"),
    ),
    sa.Index(
        "job_rows_outcome",
        "job_id",
        "outcome",
        "number",
        postgresql_where=sa.text("outcome NOT IN ('pending', 'moved')"),
    ),
)

broker_secrets = sa.Table(
    "broker_secrets",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
    sa.Column(
        "broker_id",
        sa.Integer,
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("prefix", sa.Text, nullable=False),
    _created_at(),
    sa.Column("last_used_at", sa.DateTime(timezone=True)),
    sa.Index("broker_secrets_broker", "broker_id"),
)

service_accounts = sa.Table(
    "service_accounts",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
    sa.Column("username", sa.Text(collation="C"), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("password_salt", sa.Text, nullable=False),
    sa.Column("publish", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("subscribe", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    # None for all brokers.
    sa.Column("broker_ids", sa.ARRAY(sa.Integer)),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    _created_at(),
    _updated_at(),
)

# Changes of access, appended by triggers and deleted after a while.
access_changes = sa.Table(
    "access_changes",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column(
        "xact",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("(pg_current_xact_id()::text)::bigint"),
    ),
    sa.Column(
        "at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("usernames", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("fleet_ids", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Index("access_changes_xact", "xact"),
    sa.Index("access_changes_at", "at"),
)

# Clients whose sessions must be ended, by broker; appended by triggers.
revocations = sa.Table(
    "revocations",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("username", sa.Text(collation="C"), nullable=False),
    sa.Column("device_uuid", sa.Text(collation="C"), nullable=False),
    sa.Column(
        "broker_id",
        sa.Integer,
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column(
        "asked_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("done_at", sa.DateTime(timezone=True)),
    sa.Column("sessions", sa.Integer),
    sa.Column("failure", sa.Text, nullable=False, server_default=""),
    sa.Index("revocations_due", "broker_id", "id", postgresql_where=sa.text("done_at IS NULL")),
    sa.Index(
        "revocations_done",
        "broker_id",
        "done_at",
        postgresql_where=sa.text("done_at IS NOT NULL"),
    ),
)

# The states of managed brokers, as the reconciler last found them.
driven_brokers = sa.Table(
    "driven_brokers",
    metadata,
    sa.Column(
        "broker_id",
        sa.Integer,
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("clients", sa.Integer),
    sa.Column("in_step_at", sa.DateTime(timezone=True)),
    sa.Column("problem", sa.Text, nullable=False, server_default=""),
    sa.Column("progressed_at", sa.DateTime(timezone=True)),
    sa.Column("is_partial", sa.Boolean, nullable=False, server_default=sa.false()),
)

# The clients that each managed broker holds.
driven_clients = sa.Table(
    "driven_clients",
    metadata,
    sa.Column(
        "broker_id",
        sa.Integer,
        sa.ForeignKey("mqtt_broker_config.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("username", sa.Text(collation="C"), primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
)

# Disabled fleets whose devices do not all have revocations yet.
fleet_revocations = sa.Table(
    "fleet_revocations",
    metadata,
    sa.Column(
        "fleet_id",
        sa.Text(collation="C"),
        sa.ForeignKey("fleets.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("after_id", sa.BigInteger, nullable=False, server_default="0"),
)

# What each process reports of itself; all of them write here, with the columns of
# `chassis.process_table`.
processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("role", sa.Text, nullable=False, server_default=sa.text("CURRENT_USER")),
    sa.Column("process", sa.Text(collation="C"), nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column(
        "seen_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("is_ready", sa.Boolean, nullable=False),
    sa.Column("checks", JSONB, nullable=False),
    sa.Column("loops", JSONB, nullable=False),
    sa.Column("configuration", JSONB, nullable=False),
    sa.Index("processes_in_order", "process", "id"),
    sa.Index("processes_seen", "seen_at"),
)

# The transactions that changed a kind; triggers write it.
kind_changes = sa.Table(
    "kind_changes",
    metadata,
    sa.Column("kind", sa.Text(collation="C"), primary_key=True),
    sa.Column(
        "xid",
        sa.BigInteger,
        primary_key=True,
        autoincrement=False,
        server_default=sa.text("pg_current_xact_id()::text::bigint"),
    ),
)

# One row, which says which of them were deleted.
kind_changes_kept = sa.Table(
    "kind_changes_kept",
    metadata,
    sa.Column("is_only", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column(
        "kept_from",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("pg_current_xact_id()::text::bigint"),
    ),
    sa.Column(
        "next_kept_from",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("pg_current_xact_id()::text::bigint"),
    ),
    sa.Column(
        "noted_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
)

# A table of the broker service. Only these columns are granted.
pools = sa.table("pools", sa.column("id", sa.Integer))
brokers = sa.table(
    "mqtt_broker_config",
    sa.column("id", sa.Integer),
    sa.column("name", sa.Text),
    sa.column("is_active", sa.Boolean),
    sa.column("management", sa.Text),
)
