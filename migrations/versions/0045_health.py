"""The results of probes of brokers, the changes of brokers' states, and the lease of the prober."""

from alembic import op

revision = "0045"
down_revision = "0044"

TABLES = """
-- The last result of the probes of a broker, for each place from which it is probed. A row that is
-- old shows that nothing probes the broker any more. Results are not announced, unlike the states.
CREATE TABLE broker_last_probes (
    broker_id  integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    vantage    text COLLATE "C" NOT NULL
               CHECK (vantage ~ '\\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\\Z'),
    probed_at  timestamptz NOT NULL,
    state      text NOT NULL CHECK (state IN ('unknown', 'up', 'degraded', 'down')),
    -- Empty if the probe passed.
    reason     text NOT NULL DEFAULT '' CHECK (length(reason) <= 100),
    detail     text NOT NULL DEFAULT '' CHECK (length(detail) <= 500),
    -- The time of a round trip; null if there was none.
    latency_ms real CHECK (latency_ms >= 0),
    PRIMARY KEY (broker_id, vantage)
) WITH (fillfactor = 50);

-- The results in periods of five minutes, for graphs; kept for seven days.
CREATE TABLE broker_probes (
    broker_id  integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    vantage    text COLLATE "C" NOT NULL,
    begins_at  timestamptz NOT NULL,
    probes     integer NOT NULL CHECK (probes > 0),
    failures   integer NOT NULL CHECK (failures BETWEEN 0 AND probes),
    -- Of round trips; null if there was none.
    round_trips     integer NOT NULL CHECK (round_trips BETWEEN 0 AND probes),
    mean_latency_ms real,
    max_latency_ms  real,
    -- Of the last failure; empty if there was none.
    reason     text NOT NULL DEFAULT '' CHECK (length(reason) <= 100),
    PRIMARY KEY (broker_id, vantage, begins_at)
);
CREATE INDEX broker_probes_begins_at ON broker_probes (begins_at);

-- Every change of the state of a broker, for incidents; kept for 90 days.
CREATE TABLE broker_state_history (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    broker_id  integer NOT NULL REFERENCES mqtt_broker_config (id) ON DELETE CASCADE,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    was        text NOT NULL,
    state      text NOT NULL,
    reason     text NOT NULL
);
CREATE INDEX broker_state_history_broker ON broker_state_history (broker_id, id);
CREATE INDEX broker_state_history_changed_at ON broker_state_history (changed_at);

-- One row. While it is frozen, the states of brokers stay as they are, so that no device is moved.
CREATE TABLE health_control (
    is_only    boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    is_frozen  boolean NOT NULL DEFAULT false,
    -- States are written at most once a second, by all processes together.
    written_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO health_control DEFAULT VALUES;
"""

HISTORY = """
CREATE FUNCTION keep_broker_state() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE was text := CASE TG_OP WHEN 'INSERT' THEN 'unknown' ELSE OLD.state END;
BEGIN
    IF was <> NEW.state THEN
        INSERT INTO public.broker_state_history (broker_id, was, state, reason)
        VALUES (NEW.broker_id, was, NEW.state, NEW.reason);
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION keep_broker_state() FROM PUBLIC;
CREATE TRIGGER kept AFTER INSERT OR UPDATE OF state ON broker_states
    FOR EACH ROW EXECUTE FUNCTION keep_broker_state();
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON broker_last_probes, broker_probes TO mooring_broker;
GRANT SELECT, DELETE ON broker_state_history TO mooring_broker;
GRANT SELECT, UPDATE (is_frozen, written_at) ON health_control TO mooring_broker;
GRANT SELECT ON broker_last_probes, broker_probes, broker_state_history, health_control
    TO mooring_operator;
GRANT UPDATE (is_frozen) ON health_control TO mooring_operator;
"""

LEASES = """
GRANT SELECT, INSERT, UPDATE ON leases TO mooring_broker;
CREATE POLICY of_the_broker_service ON leases TO mooring_broker USING (name = 'broker_probes');
ALTER POLICY of_the_registry ON leases USING (name NOT IN ('audit_seals', 'broker_probes'));
"""


def upgrade() -> None:
    """Makes the tables and the trigger, then grants the rights."""
    for part in (TABLES, HISTORY, GRANTS, LEASES):
        op.execute(part)
