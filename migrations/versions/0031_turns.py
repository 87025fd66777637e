"""Rows to lock in place of public advisory locks, and limits of the roles."""

from alembic import op

revision = "0031"
down_revision = "0030"

# A row lock needs the right to update a column. The right allows no change here, because all
# allowed names are taken.
TURNS = """
CREATE TABLE turns (
    name text PRIMARY KEY
         CHECK (name IN ('placement', 'device_counts', 'broker_secrets', 'usernames'))
);
INSERT INTO turns VALUES ('placement'), ('device_counts'), ('broker_secrets'), ('usernames');
GRANT SELECT, UPDATE (name) ON turns TO mooring_broker, mooring_registry;
"""

# A role that signals a session of mqtt_reader must be a member of it. With this function the
# registry can signal its sessions, and only those.
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
    """Makes the table and the function, then grants the rights."""
    for part in (TURNS, END_READERS):
        op.execute(part)
