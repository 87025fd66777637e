"""Rows to lock in place of public advisory locks, and what keeps roles within their bounds."""

from alembic import op

revision = "0031"
down_revision = "0030"

# Row locks need the right to update a column. Of these rows it changes nothing: all names that are
# allowed are taken.
TURNS = """
CREATE TABLE turns (
    name text PRIMARY KEY
         CHECK (name IN ('placement', 'device_counts', 'broker_secrets', 'usernames'))
);
INSERT INTO turns VALUES ('placement'), ('device_counts'), ('broker_secrets'), ('usernames');
GRANT SELECT, UPDATE (name) ON turns TO mooring_broker, mooring_registry;
"""

# Whoever signals a session of mqtt_reader has to be a member of it. The function is the only way
# for the registry to do so, and reaches nobody else's sessions.
END_READERS = """
CREATE FUNCTION end_long_readers(transaction_s double precision, session_s double precision)
RETURNS integer LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))::integer
    FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'mqtt_reader'
      AND (xact_start < clock_timestamp() - make_interval(secs => transaction_s)
           OR backend_start < clock_timestamp() - make_interval(secs => session_s))
$$;
REVOKE ALL ON FUNCTION end_long_readers(double precision, double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION end_long_readers(double precision, double precision)
    TO mooring_registry;
"""


def upgrade() -> None:
    """Once."""
    for part in (TURNS, END_READERS):
        op.execute(part)
