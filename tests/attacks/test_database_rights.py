"""The exact rights of each role of the database: a right that is granted by accident fails here.

The rights are all that a role can use: its own, those of PUBLIC, and those of roles that it is a
member of.
"""

import re

import psycopg
import pytest

import migrations
from local.postgres import Postgres
from tests.stack import ROLES, Database

# Rights on tables and views; the columns are in parentheses if the right is limited to them. An
# asterisk would mean that the role may grant it to others.
TABLES = {
    "mooring_access": {
        "access_changes": "SELECT",
        "alembic_version": "SELECT",
        "audit_log": """
            INSERT(actor actor_id action subject refusal count before after details
                request_id ticket)
        """,
        "broker_secrets": "SELECT UPDATE(last_used_at)",
        "devices": """
            SELECT(id uuid fleet_id mqtt_broker_id mqtt_username mqtt_password_hash
                credential_salt is_active is_online last_seen_at provisioned_by_key_id
                told_broker_ids password_algorithm previous_password_hash
                previous_salt previous_until presence_broker_id presence_at
                previous_broker_ids)
            UPDATE(is_online last_seen_at presence_broker_id presence_at)
        """,
        "fleets": "SELECT(id mqtt_broker_id is_active)",
        "mqtt_broker_config": "SELECT(id client_id_prefix)",
        "processes": "SELECT INSERT UPDATE",
        "service_accounts": "SELECT",
    },
    "mooring_broker": {
        "alembic_version": "SELECT",
        "audit_log": """
            INSERT(actor actor_id action subject refusal count before after details
                request_id ticket)
        """,
        "broker_states": "SELECT INSERT UPDATE DELETE",
        "broker_last_probes": "SELECT INSERT UPDATE DELETE",
        "broker_probes": "SELECT INSERT UPDATE DELETE",
        "broker_state_history": "SELECT DELETE",
        "certificates": "SELECT INSERT UPDATE DELETE",
        "device_count_changes": "SELECT",
        "device_counts": "SELECT",
        "broker_reports": "SELECT",
        "devices": """
            SELECT(id uuid fleet_id mqtt_broker_id is_active told_broker_ids region
                latitude longitude told_ca_ids pool_id home_broker_id)
        """,
        "fleet_brokers": "SELECT",
        "fleets": """
            SELECT(id mqtt_broker_id is_restricted revision rollout_broker_id
                rollout_percent rollout_salt pool_id)
        """,
        "health_control": "SELECT UPDATE(is_frozen written_at)",
        "leases": "SELECT INSERT UPDATE",
        "local_brokers_kept": "SELECT",
        "mqtt_broker_config": "SELECT INSERT UPDATE DELETE",
        "mqtt_broker_history": "SELECT UPDATE(password_encrypted)",
        "placement_changes": "SELECT",
        "placement_version": "SELECT",
        "pool_history": "SELECT",
        "pool_members": "SELECT INSERT UPDATE DELETE",
        "pools": "SELECT INSERT UPDATE DELETE",
        "processes": "SELECT INSERT UPDATE",
        "regions": "SELECT INSERT UPDATE DELETE",
        "turns": "SELECT UPDATE(name)",
    },
    "mooring_operator": {
        "api_key_failures": "SELECT",
        "api_tokens": """
            SELECT(id name role is_active expires_at created_at last_used_at prefix
                fleet_ids max_devices devices_made)
        """,
        "audit_checks": "SELECT",
        "audit_log": "SELECT",
        "audit_seals": "SELECT",
        "broker_last_probes": "SELECT",
        "broker_probes": "SELECT",
        "broker_secrets": "SELECT(id broker_id prefix created_at last_used_at)",
        "broker_states": "SELECT",
        "broker_state_history": "SELECT",
        "certificates": """
            SELECT(id name kind pem fingerprint_sha256 subject issuer not_before
                not_after created_at replacement_id rotation_began_at
                rotation_threshold_percent)
        """,
        "console_sessions": "SELECT(id token_id created_at last_used_at)",
        "device_count_changes": "SELECT",
        "device_counts": "SELECT",
        "device_events": "SELECT",
        "device_reports": "SELECT",
        "broker_reports": "SELECT",
        "devices": """
            SELECT(id uuid device_name device_type fleet_id mqtt_broker_id
                mqtt_username credential_key_id reprovisioning_allowed is_active
                is_online last_seen_at provisioned_at provisioned_by_key_id
                told_broker_ids told_at application_id mac_address os_version
                agent_version region latitude longitude created_at updated_at
                told_source told_ca_ids password_algorithm previous_until
                salt_broker_ids proved_from has_short_api_key rotations
                rotations_since previous_broker_ids rotated_at pool_id home_broker_id)
            UPDATE(mqtt_broker_id pool_id)
        """,
        "driven_brokers": "SELECT",
        "expected_devices": "SELECT",
        "fleet_brokers": "SELECT",
        "fleet_revocations": "SELECT",
        "fleets": """
            SELECT
            UPDATE(mqtt_broker_id rollout_broker_id rollout_percent rollout_salt
                is_active pool_id)
        """,
        "health_control": "SELECT UPDATE(is_frozen)",
        "job_rows": "SELECT",
        "jobs": "SELECT",
        "local_brokers_kept": "SELECT",
        "mqtt_acls": "SELECT",
        "mqtt_broker_config": """
            SELECT
            UPDATE(name description protocol host port path use_tls verify_certificate
                client_id_prefix keep_alive clean_session reconnect_period
                connect_timeout ca_certificate_id client_certificate_id is_active
                is_default region labels management backup_broker_id capacity)
        """,
        "mqtt_broker_history": """
            SELECT(broker_id revision kind changed_at changed_by by_sql state
                ca_certificate_id client_certificate_id)
        """,
        "pool_history": "SELECT",
        "pool_members": "SELECT INSERT DELETE UPDATE(weight priority)",
        "pools": """
            SELECT INSERT DELETE
            UPDATE(name description policy is_sticky is_default rebalance_percent
                rebalance_salt)
        """,
        "processes": """
            SELECT(id role process host pid version started_at seen_at ended_at
                is_ready checks loops)
        """,
        "provisioning_keys": """
            SELECT(id fleet_id description max_devices devices_provisioned
                default_broker_id expires_at is_active created_at last_used_at
                allowed_device_types source_networks allowed_uuids uuid_prefix
                only_expected revision updated_at)
            UPDATE(default_broker_id)
        """,
        "refusal_counts": "SELECT",
        "regions": """
            SELECT INSERT DELETE
            UPDATE(name latitude longitude mqtt_broker_id pool_id)
        """,
        "registration_counts": "SELECT",
        "revocations": "SELECT",
        "sign_in_codes": "SELECT(token_id expires_at)",
        "service_accounts": """
            SELECT(id username description publish subscribe broker_ids is_active
                expires_at revision created_at updated_at)
        """,
    },
    "mooring_registry": {
        "access_changes": "SELECT DELETE",
        "alembic_version": "SELECT",
        "api_key_failures": "SELECT INSERT UPDATE DELETE",
        "api_tokens": "SELECT INSERT UPDATE(is_active last_used_at fleet_ids devices_made)",
        "audit_checks": "SELECT",
        "audit_log": """
            SELECT
            INSERT(actor actor_id action subject refusal count before after details
                request_id ticket)
        """,
        "audit_seals": "SELECT(id mac sealed_at)",
        "broker_secrets": "SELECT INSERT DELETE",
        "console_sessions": "SELECT INSERT DELETE UPDATE(last_used_at)",
        "device_count_changes": "SELECT DELETE",
        "device_counts": "SELECT INSERT UPDATE DELETE",
        "device_events": "SELECT UPDATE(address)",
        "device_reports": "SELECT",
        "devices": "SELECT INSERT UPDATE DELETE",
        "driven_brokers": "SELECT INSERT UPDATE",
        "driven_clients": "SELECT INSERT UPDATE DELETE",
        "expected_devices": "SELECT INSERT DELETE UPDATE(mqtt_broker_id registered_at)",
        "fleet_brokers": "SELECT INSERT DELETE",
        "fleet_revocations": "SELECT",
        "fleets": "SELECT INSERT UPDATE DELETE",
        "job_rows": "SELECT INSERT UPDATE DELETE",
        "jobs": "SELECT INSERT UPDATE",
        "kind_changes": "SELECT DELETE",
        "kind_changes_kept": "SELECT UPDATE",
        "leases": "SELECT INSERT UPDATE",
        "mqtt_broker_config": """
            REFERENCES(id)
            SELECT(id name is_active management backup_broker_id)
        """,
        "placement_version": "SELECT",
        "pool_members": "SELECT(pool_id broker_id)",
        "pools": "SELECT(id)",
        "processes": "SELECT INSERT UPDATE DELETE",
        "provisioning_keys": "SELECT INSERT UPDATE DELETE",
        "refusal_counts": "SELECT INSERT UPDATE DELETE",
        "regions": "SELECT(id)",
        "registration_counts": "SELECT INSERT UPDATE DELETE",
        "revocations": "SELECT UPDATE DELETE",
        "sign_in_codes": "SELECT INSERT DELETE",
        "service_accounts": "SELECT INSERT UPDATE DELETE",
        "turns": "SELECT UPDATE(name)",
    },
    "mooring_sealer": {
        "alembic_version": "SELECT",
        "audit_log": "SELECT",
        "audit_checks": "SELECT INSERT UPDATE",
        "audit_seals": "SELECT INSERT",
        "leases": "SELECT INSERT UPDATE",
        "processes": "SELECT INSERT UPDATE",
    },
    "mqtt_reader": {
        "mqtt_acls": "SELECT",
        "mqtt_users": "SELECT",
    },
}
SEQUENCES = {"mooring_broker": {"mqtt_broker_config_id_seq": "USAGE"}}
# Functions of Mooring that other roles than their owner may call; triggers need no right.
FUNCTIONS = {
    "end_long_readers": {"mooring_registry"},
    "note_device_events": {"mooring_access", "mooring_registry"},
    "pool_slots": {"mooring_broker", "mooring_operator"},
    "note_device_reports": {"mooring_registry"},
    "reserved_for": {"mooring_operator", "mooring_registry"},
    "revoke_fleet_devices": {"mooring_registry"},
    "rollout_position": {"mooring_broker", "mooring_operator", "mooring_registry"},
}
# PostgreSQL's own functions that PUBLIC may not call.
SYSTEM_FUNCTIONS = {("mooring_registry", "pg_logical_emit_message")}
# The rows of a table that a role sees and writes, if these are not all.
POLICIES = {
    ("leases", "mooring_broker", "ALL", "(name = 'broker_probes'::text)", None),
    (
        *("leases", "mooring_registry", "ALL"),
        *("(name <> ALL (ARRAY['audit_seals'::text, 'broker_probes'::text]))", None),
    ),
    # The registry says which process holds the lease.
    ("leases", "mooring_registry", "SELECT", "true", None),
    ("leases", "mooring_sealer", "ALL", "(name = 'audit_seals'::text)", None),
    *(
        ("processes", role, "ALL", *["(role = CURRENT_USER)"] * 2)
        for role in ("mooring_access", "mooring_broker", "mooring_registry", "mooring_sealer")
    ),
    ("processes", "mooring_operator", "SELECT", "true", None),
    ("processes", "mooring_registry", "SELECT", "true", None),
    ("processes", "mooring_registry", "DELETE", "true", None),
}
OURS = "NOT LIKE ALL (ARRAY['pg\\_%%', 'information\\_schema'])"

Rights = dict[str, dict[str, dict[str, set[str]]]]


@pytest.fixture(autouse=True)
def contained(database: Database) -> None:
    """Sets the rights on the database, which a copy does not have from its template."""
    migrations.upgrade(database.url("mooring"))


def parsed(matrix: dict[str, dict[str, str]]) -> Rights:
    """The columns by role, relation and right; no columns if the right is on the whole relation."""
    return {
        role: {
            relation: {
                right: set(columns.split())
                for right, columns in re.findall(r"([A-Z]+\*?)(?:\(([^)]*)\))?", rights)
            }
            for relation, rights in relations.items()
        }
        for role, relations in matrix.items()
    }


def found(database: Database, query: str, kinds: str, rights: tuple[str, ...]) -> Rights:
    """The rights in the result of `query` for each role and each relation of one of the `kinds`."""
    every = [option for right in rights for option in (right, f"{right} WITH GRANT OPTION")]
    rows = database.execute(query, list(ROLES), every, list(kinds))
    result: Rights = {}
    for role, relation, right, columns in rows:
        shown = right.replace(" WITH GRANT OPTION", "*")
        result.setdefault(role, {}).setdefault(relation, {})[shown] = set(columns or ())
    return result


def relations(test: str) -> str:
    return f"""
        SELECT role, relname, right_, NULL
        FROM unnest(%s::text[]) AS role, unnest(%s::text[]) AS right_, pg_class
        WHERE relnamespace::regnamespace::text {OURS}
          AND relkind = ANY (%s) AND {test}(role, pg_class.oid, right_)
    """


COLUMNS = f"""
    SELECT role, relname, right_, array_agg(attname::text)
    FROM unnest(%s::text[]) AS role, unnest(%s::text[]) AS right_, pg_class
    JOIN pg_attribute ON attrelid = pg_class.oid AND NOT attisdropped
    WHERE relnamespace::regnamespace::text {OURS}
      AND relkind = ANY (%s) AND has_column_privilege(role, pg_class.oid, attnum, right_)
      AND NOT has_table_privilege(role, pg_class.oid, right_)
    GROUP BY 1, 2, 3
"""


def test_the_matrix_has_every_role(database: Database) -> None:
    query = """
        SELECT rolname FROM pg_roles
        WHERE NOT rolsuper AND rolname <> 'mooring' AND NOT starts_with(rolname, 'pg_')
    """
    assert {name for (name,) in database.execute(query)} == set(ROLES) == TABLES.keys()


def test_rights_on_tables_are_exact(database: Database) -> None:
    on_tables: tuple[str, ...] = (
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TRUNCATE",
        "REFERENCES",
        "TRIGGER",
    )
    [(version,)] = database.execute("SELECT current_setting('server_version_num')::integer")
    if version >= 170_000:
        on_tables += ("MAINTAIN",)
    rights = found(database, relations("has_table_privilege"), "rvmpf", on_tables)
    on_columns = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
    for role, known in found(database, COLUMNS, "rvmpf", on_columns).items():
        for relation, more in known.items():
            rights.setdefault(role, {}).setdefault(relation, {}).update(more)
    expected = parsed(TABLES)
    for role in ROLES:
        assert rights[role] == expected[role], role


def test_rights_on_sequences_are_exact(database: Database) -> None:
    on_sequences = ("USAGE", "SELECT", "UPDATE")
    rights = found(database, relations("has_sequence_privilege"), "S", on_sequences)
    assert rights == parsed(SEQUENCES)


def test_rights_on_functions_are_exact(database: Database) -> None:
    query = f"""
        SELECT role, proname FROM unnest(%s::text[]) AS role, pg_proc
        WHERE pronamespace::regnamespace::text {OURS}
          AND has_function_privilege(role, pg_proc.oid, 'EXECUTE')
    """
    called: dict[str, set[str]] = {}
    for role, name in database.execute(query, [*ROLES, "public"]):
        called.setdefault(name, set()).add(role)
    assert called == FUNCTIONS


# Called for each row, so it sets nothing; every name in it has its schema.
QUALIFIED = {"touch_updated_at": "BEGIN NEW.updated_at := pg_catalog.now(); RETURN NEW; END"}


def test_functions_do_not_use_the_search_path_of_the_caller(
    database: Database,
) -> None:
    """Its body was resolved when it was made, or it sets its own search path."""
    query = f"""
        SELECT proname, prosqlbody IS NOT NULL, proconfig, prosecdef, prosrc FROM pg_proc
        WHERE pronamespace::regnamespace::text {OURS}
    """
    functions = database.execute(query)
    assert len(functions) > 20
    for name, is_resolved, settings, is_definer, source in functions:
        if QUALIFIED.get(name) == " ".join(source.split()):
            assert not is_definer
            continue
        paths = [setting for setting in settings or () if setting.startswith("search_path=")]
        assert is_resolved or paths in (
            ["search_path=pg_catalog"],
            ["search_path=pg_catalog, pg_temp"],
        ), name


def test_rights_that_postgresql_revokes_from_public_stay_revoked(database: Database) -> None:
    functions = """
        SELECT role, proname FROM unnest(%s::text[]) AS role, pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND has_function_privilege(role, pg_proc.oid, 'EXECUTE')
          AND NOT has_function_privilege('public', pg_proc.oid, 'EXECUTE')
    """
    assert set(database.execute(functions, list(ROLES))) == SYSTEM_FUNCTIONS
    catalogs = """
        SELECT role, relname, right_
        FROM unnest(%s::text[]) AS role, pg_class,
             unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER}'::text[]) AS right_
        WHERE relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
          AND relkind IN ('r', 'v') AND has_table_privilege(role, pg_class.oid, right_)
          AND (right_ <> 'SELECT' OR NOT has_table_privilege('public', pg_class.oid, right_))
          -- Its rule is SET, which every session may.
          AND (relname, right_) <> ('pg_settings', 'UPDATE')
    """
    assert database.execute(catalogs, list(ROLES)) == []
    # No role may set what only a superuser sets, or has rights on future objects.
    assert database.execute("SELECT parname FROM pg_parameter_acl") == []
    assert database.execute("SELECT defaclobjtype FROM pg_default_acl") == []


def test_rows_that_a_role_sees_are_exact(database: Database) -> None:
    query = """
        SELECT tablename::text, unnest(roles)::text, cmd, qual, with_check FROM pg_policies
    """
    assert (
        database.execute("SELECT policyname FROM pg_policies WHERE permissive <> 'PERMISSIVE'")
        == []
    )
    assert set(database.execute(query)) == POLICIES
    rows = "INSERT INTO leases (name, holder, expires_at) VALUES (%s, '', now())"
    for role, name in (
        ("mooring_sealer", "jobs"),
        ("mooring_registry", "audit_seals"),
        ("mooring_registry", "broker_probes"),
        ("mooring_broker", "jobs"),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute(rows, name, role=role)
        database.execute(rows, name)
        take = "UPDATE leases SET expires_at = 'infinity' RETURNING name"
        assert database.execute(take, role=role) == [], role
        database.execute("DELETE FROM leases")


def test_no_role_can_make_or_own_an_object(database: Database) -> None:
    """Nor is a role a member of another one with which it could."""
    schemas = """
        SELECT role, nspname FROM unnest(%s::text[]) AS role, pg_namespace
        WHERE has_schema_privilege(role, pg_namespace.oid, 'CREATE')
    """
    assert database.execute(schemas, [*ROLES, "public"]) == []
    databases = """
        SELECT role, datname, right_
        FROM unnest(%s::text[]) AS role, pg_database,
             unnest('{CREATE,TEMPORARY,CONNECT}'::text[]) AS right_
        WHERE datname IN (current_database(), 'postgres', 'template1')
          AND has_database_privilege(role, pg_database.oid, right_)
    """
    connecting = {(role, database.name, "CONNECT") for role in ROLES}
    assert set(database.execute(databases, list(ROLES))) == connecting
    tablespaces = """
        SELECT role, spcname FROM unnest(%s::text[]) AS role, pg_tablespace
        WHERE has_tablespace_privilege(role, pg_tablespace.oid, 'CREATE')
    """
    assert database.execute(tablespaces, list(ROLES)) == []
    owned = """
        SELECT rolname, classid::regclass FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid
        WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o' AND rolname = ANY (%s)
    """
    assert database.execute(owned, list(ROLES)) == []
    members = """
        SELECT member::regrole::text, roleid::regrole::text FROM pg_auth_members
        WHERE member::regrole::text = ANY (%s)
    """
    assert database.execute(members, list(ROLES)) == []


@pytest.mark.parametrize("name", ["postgres", "template1"])
def test_a_role_does_not_leave_the_database(
    database: Database, postgres: Postgres, name: str
) -> None:
    """In another database it could make objects that it cannot make here."""
    for role in ROLES:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(postgres.url(role, database.password, name))
