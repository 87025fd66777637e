"""That a process was lost is noted as a change, as that it ended."""

from alembic import op

revision = "0040"
down_revision = "0039"

# A process that was killed writes nothing. So each report looks whether another process was lost
# since the report before: of those, the last report is older than the 30 seconds after which a
# process is lost, and it was not yet at the report before.
NOTED = """
CREATE FUNCTION note_lost() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM public.processes
               WHERE ended_at IS NULL
                 AND seen_at < NEW.seen_at - interval '30 seconds'
                 AND seen_at >= OLD.seen_at - interval '30 seconds') THEN
        INSERT INTO public.kind_changes (kind) VALUES ('processes') ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION note_lost() FROM PUBLIC;
CREATE TRIGGER noted_lost AFTER UPDATE ON processes
    FOR EACH ROW WHEN (NEW.seen_at > OLD.seen_at) EXECUTE FUNCTION note_lost();
"""


def upgrade() -> None:
    """Adds the trigger."""
    op.execute(NOTED)
