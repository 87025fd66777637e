"""What keeps the roles within their bounds, as far as the database's owner may say so.

Roles belong to the whole server, and the rights on a database are in no dump of it: so this is
said at each run of the migrations. What an administrator of the server has set stays.
"""

from sqlalchemy import Connection, text

# Connections that a role may have at once: together they leave half of PostgreSQL's usual 100 to
# the services. See docs/scaling-the-database.md.
CONNECTION_LIMITS = {
    "mqtt_reader": 16,
    "mooring_operator": 8,
    "mooring_sealer": 4,
    "mooring_access": 24,
}

# A session may set others for itself: these are for brokers that hang, not for attackers.
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

# Rights on roles are another matter than owning the database: a server's administrator may have
# made the roles. Then the rest is done, and the migrations' log says what was not.
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
    """Takes from everybody what nobody of ours needs, and limits roles that have no limit."""
    connection.exec_driver_sql(CLOSE_DATABASE)
    for role, limit in CONNECTION_LIMITS.items():
        if connection.scalar(text(UNLIMITED), {"role": role}):
            _try(connection, f"ALTER ROLE {role} CONNECTION LIMIT {limit}")
    for name, value in READER_TIMEOUTS.items():
        if connection.scalar(text(UNSET), {"name": name}):
            _try(connection, f"ALTER ROLE mqtt_reader SET {name} = '{value}'")
    if not connection.scalar(text(IS_SIGNALLER)):
        # So that `end_long_readers` may end its sessions.
        version = int(connection.scalar(text("SHOW server_version_num")))
        inherits = " WITH INHERIT TRUE" if version >= 160_000 else ""
        _try(connection, f"GRANT mqtt_reader TO CURRENT_USER{inherits}")
    connection.exec_driver_sql(GRANT_MARK)


def _try(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(TOLERANT.format(statement=statement))
