"""The audit log: who changed what, and what was refused."""

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
    -- Empty for what was done, else the reason why it was refused.
    refusal    text NOT NULL DEFAULT '',
    -- How many attempts this line stands for: refusals that repeat share one.
    count      integer NOT NULL DEFAULT 1 CHECK (count > 0),
    before     jsonb,
    after      jsonb,
    -- Of refusals that share a line: from when to when, and from where.
    details    jsonb,
    request_id text NOT NULL
);
-- One for each filter, in the order of a listing. "broker." means all that begins so: every action
-- is a noun, a full stop and a verb.
CREATE INDEX audit_log_at ON audit_log (at, id);
CREATE INDEX audit_log_actor ON audit_log (actor, at, id);
CREATE INDEX audit_log_actor_id ON audit_log (actor_id, at, id);
CREATE INDEX audit_log_action ON audit_log (action, at, id);
CREATE INDEX audit_log_noun ON audit_log (split_part(action, '.', 1), at, id);
CREATE INDEX audit_log_subject ON audit_log (subject, at, id);
CREATE INDEX audit_log_refused ON audit_log (at, id) WHERE refusal <> '';
"""

# Nobody but the owner changes or removes a line, and nobody says when or where in it a line was
# written: that is the database's to say.
GRANTS = """
GRANT INSERT (actor, actor_id, action, subject, refusal, count, before, after, details, request_id)
    ON audit_log TO mooring_broker, mooring_registry;
GRANT SELECT ON audit_log TO mooring_registry, mooring_operator;
"""


def upgrade() -> None:
    """Makes the table, then says who may what."""
    op.execute(TABLES)
    op.execute(GRANTS)
