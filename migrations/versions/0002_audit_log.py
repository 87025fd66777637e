"""The audit log: who changed what, and which attempts were refused."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = """
CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    actor_id   text NOT NULL,
    action     text NOT NULL,
    subject    text NOT NULL,
    -- Empty for a change, else the reason of the refusal.
    refusal    text NOT NULL DEFAULT '',
    -- The number of attempts of this line: repeated refusals share one line.
    count      integer NOT NULL DEFAULT 1 CHECK (count > 0),
    before     jsonb,
    after      jsonb,
    -- For refusals that share a line: their first and last time, and their addresses.
    details    jsonb,
    request_id text NOT NULL
);
-- One index for each filter, in the order of the lists. An action is a noun, a full stop and a
-- verb; the filter "broker." matches all actions of the noun.
CREATE INDEX audit_log_at ON audit_log (at, id);
CREATE INDEX audit_log_actor ON audit_log (actor, at, id);
CREATE INDEX audit_log_actor_id ON audit_log (actor_id, at, id);
CREATE INDEX audit_log_action ON audit_log (action, at, id);
CREATE INDEX audit_log_noun ON audit_log (split_part(action, '.', 1), at, id);
CREATE INDEX audit_log_subject ON audit_log (subject, at, id);
CREATE INDEX audit_log_refused ON audit_log (at, id) WHERE refusal <> '';
"""

# Only the owner may change or remove a line. The database itself sets the time and the number of a
# line.
GRANTS = """
GRANT INSERT (actor, actor_id, action, subject, refusal, count, before, after, details, request_id)
    ON audit_log TO mooring_broker, mooring_registry;
GRANT SELECT ON audit_log TO mooring_registry, mooring_operator;
"""


def upgrade() -> None:
    """Makes the table, then grants the rights."""
    op.execute(TABLES)
    op.execute(GRANTS)
