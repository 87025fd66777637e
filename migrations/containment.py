"""Limits of the database roles, as far as the owner of the database may set them.

Roles belong to the whole server, and a dump of the database does not contain the rights on it. So
each run of the migrations sets them. Values that an administrator of the server has set stay.
"""

from sqlalchemy import Connection, text

# Connections that a role may have at once. Together they leave half of PostgreSQL's usual 100 to
# the services. See docs/scaling-the-database.md.
CONNECTION_LIMITS = {
    "mqtt_reader": 16,
    "mooring_operator": 8,
    "mooring_sealer": 4,
    "mooring_access": 24,
}

# A session may set other values for itself: these protect against brokers that hang, not against
# attackers.
READER_TIMEOUTS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}

CLOSE_DATABASE = """
DO $$ BEGIN
    EXECUTE format('REVOKE TEMPORARY, CREATE ON DATABASE %%I FROM PUBLIC', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END $$
"""

# The owner of the database may lack rights on the roles, because an administrator of the server may
# have made them. Then the rest is done, and the migrations' log says what was not.
TOLERANT = """
DO $$ BEGIN
    {statement};
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING '%% (%%)', $q${statement}$q$, SQLERRM;
END $$
"""

UNLIMITED = "SELECT rolconnlimit = -1 FROM pg_roles WHERE rolname = :role"
UNSET = """
SELECT NOT EXISTS (
    SELECT FROM pg_db_role_setting JOIN pg_roles ON pg_roles.oid = setrole, unnest(setconfig) AS one
    WHERE rolname = 'mqtt_reader' AND one LIKE :name || '=%'
)
"""
# A message in the log makes a commit wait for a synchronous standby; see as_superuser.sql.
GRANT_MARK = """
DO $$
DECLARE given regprocedure;
BEGIN
    FOR given IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = 'pg_logical_emit_message'
          AND has_function_privilege(current_user, oid, 'EXECUTE WITH GRANT OPTION')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %%s TO mooring_registry', given);
    END LOOP;
END $$
"""
IS_SIGNALLER = "SELECT pg_has_role(current_user, 'mqtt_reader', 'USAGE')"


def contain(connection: Connection) -> None:
    """Revokes rights that no service needs from PUBLIC, and limits roles that have no limit."""
    connection.exec_driver_sql(CLOSE_DATABASE)
    for role, limit in CONNECTION_LIMITS.items():
        if connection.scalar(text(UNLIMITED), {"role": role}):
            _try(connection, f"ALTER ROLE {role} CONNECTION LIMIT {limit}")
    for name, value in READER_TIMEOUTS.items():
        if connection.scalar(text(UNSET), {"name": name}):
            _try(connection, f"ALTER ROLE mqtt_reader SET {name} = '{value}'")
    if not connection.scalar(text(IS_SIGNALLER)):
        # With this, `end_long_readers` may end its sessions.
        version = int(connection.scalar(text("SHOW server_version_num")))
        inherits = " WITH INHERIT TRUE" if version >= 160_000 else ""
        _try(connection, f"GRANT mqtt_reader TO CURRENT_USER{inherits}")
    connection.exec_driver_sql(GRANT_MARK)


def _try(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(TOLERANT.format(statement=statement))
