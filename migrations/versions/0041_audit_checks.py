"""What the sealer found when it last checked the newest seals of the audit log."""

from alembic import op

revision = "0041"
down_revision = "0040"

# One row. `last_mac` is that of the seal `last_seal_id`, which must stay in the chain.
CHECKS = """
CREATE TABLE audit_checks (
    is_only       boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    checked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    first_seal_id bigint NOT NULL,
    last_seal_id  bigint NOT NULL,
    last_mac      bytea NOT NULL,
    lines         bigint NOT NULL,
    findings      jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(findings) = 'array')
);
GRANT SELECT, INSERT, UPDATE ON audit_checks TO mooring_sealer;
GRANT SELECT ON audit_checks TO mooring_registry, mooring_operator;
GRANT SELECT (id, mac, sealed_at) ON audit_seals TO mooring_registry;

CREATE TRIGGER noted_new AFTER INSERT ON audit_checks REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('audit', 'arrived');
CREATE TRIGGER noted_changed AFTER UPDATE ON audit_checks
    FOR EACH ROW WHEN (OLD.findings IS DISTINCT FROM NEW.findings)
    EXECUTE FUNCTION note_kind('audit');
CREATE TRIGGER noted_gone AFTER DELETE ON audit_checks REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('audit', 'gone');
CREATE TRIGGER noted_truncated AFTER TRUNCATE ON audit_checks
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('audit');
"""


def upgrade() -> None:
    """Adds the table, and lets the registry read the last seal."""
    op.execute(CHECKS)


def downgrade() -> None:
    """Removes the table and the right."""
    op.execute(
        "REVOKE SELECT (id, mac, sealed_at) ON audit_seals FROM mooring_registry;"
        "DROP TABLE audit_checks"
    )
