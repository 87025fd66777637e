"""The rotations of one device share one line of the audit log in each period."""

from alembic import op

revision = "0033"
down_revision = "0032"

COLUMN = """
ALTER TABLE devices ADD COLUMN rotated_at timestamptz;
CREATE INDEX devices_rotations ON devices (rotations_since) WHERE rotations > 1;
"""

# The first rotation of a period writes its own line, in its transaction. Later ones are counted in
# the row, and this trigger writes their line when the period or the device ends. It is a trigger
# because a period can end in several ways, and the count must not be lost in any.
NOTE = """
CREATE FUNCTION note_rotations() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO public.audit_log (actor, actor_id, action, subject, count, details, request_id)
    VALUES (
        'device', OLD.uuid, 'device.rotate_credentials', OLD.uuid, OLD.rotations - 1,
        jsonb_build_object('since', OLD.rotations_since, 'last_at', OLD.rotated_at), ''
    );
    RETURN NULL;
END $$;
CREATE TRIGGER rotations_over AFTER UPDATE OF rotations ON devices FOR EACH ROW
    WHEN (OLD.rotations > 1 AND NEW.rotations < OLD.rotations) EXECUTE FUNCTION note_rotations();
CREATE TRIGGER rotations_gone AFTER DELETE ON devices FOR EACH ROW
    WHEN (OLD.rotations > 1) EXECUTE FUNCTION note_rotations();
"""

# Rotations that were counted before have a line each already.
COUNTED = "UPDATE devices SET rotations = 1 WHERE rotations > 1;"

GRANTS = """
REVOKE ALL ON FUNCTION note_rotations() FROM PUBLIC;
GRANT SELECT (rotated_at) ON devices TO mooring_operator;
"""


def upgrade() -> None:
    """Adds the column and the triggers, then grants the rights."""
    for part in (COUNTED, COLUMN, NOTE, GRANTS):
        op.execute(part)
