"""Processes report their state, and each kind of thing notes when it changes."""

from alembic import op

revision = "0038"
down_revision = "0037"

PROCESSES = """
CREATE TABLE processes (
    -- A process takes a new one each time it starts.
    id            uuid PRIMARY KEY,
    -- The role of the database that writes the row, and may change no other.
    role          text NOT NULL DEFAULT current_user,
    process       text COLLATE "C" NOT NULL CHECK (length(process) BETWEEN 1 AND 100),
    host          text NOT NULL CHECK (length(host) <= 255),
    pid           integer NOT NULL,
    version       text NOT NULL CHECK (length(version) <= 100),
    started_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Null for a process that runs, and for one that was killed.
    ended_at      timestamptz,
    is_ready      boolean NOT NULL,
    -- By the name of the check: "serving", or the problem.
    checks        jsonb NOT NULL,
    loops         jsonb NOT NULL,
    configuration jsonb NOT NULL,
    CONSTRAINT processes_are_small CHECK (
        pg_column_size(checks) + pg_column_size(loops) + pg_column_size(configuration) <= 65536
    )
);
CREATE INDEX processes_in_order ON processes (process, id);
CREATE INDEX processes_seen ON processes (seen_at);
"""

# Every process may write its own row and read it. The registry reads them all, and deletes old
# ones.
RIGHTS = """
ALTER TABLE processes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON processes
    TO mooring_broker, mooring_registry, mooring_access, mooring_sealer
    USING (role = current_user) WITH CHECK (role = current_user);
CREATE POLICY reading ON processes FOR SELECT TO mooring_registry, mooring_operator USING (true);
CREATE POLICY forgetting ON processes FOR DELETE TO mooring_registry USING (true);
GRANT SELECT, INSERT, UPDATE ON processes
    TO mooring_broker, mooring_registry, mooring_access, mooring_sealer;
GRANT DELETE ON processes TO mooring_registry;
GRANT SELECT (id, role, process, host, pid, version, started_at, seen_at, ended_at, is_ready,
              checks, loops)
    ON processes TO mooring_operator;

-- The registry says which process holds the sealer's lease, and still cannot take it.
CREATE POLICY read_by_the_registry ON leases FOR SELECT TO mooring_registry USING (true);
"""

# A row for each kind in each transaction that changed it. Rows are only inserted, so transactions
# do not wait for one another here. The transaction's number and not a time or an identity says
# which rows a reader has not seen, because transactions commit in another order than they begin.
CHANGES = """
CREATE TABLE kind_changes (
    kind text COLLATE "C" NOT NULL,
    xid  bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    PRIMARY KEY (kind, xid)
);

-- Rows of transactions before `kept_from` were deleted. Later it will be `next_kept_from`, which is
-- the first transaction that was open at `noted_at`.
CREATE TABLE kind_changes_kept (
    is_only        boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    kept_from      bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    next_kept_from bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    noted_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO kind_changes_kept DEFAULT VALUES;

-- The first argument is the kind, the second the table of the rows that were touched: a statement
-- that touched none changed nothing.
CREATE FUNCTION note_kind() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_ARGV[1] = 'arrived' THEN
        IF NOT EXISTS (SELECT FROM arrived) THEN
            RETURN NULL;
        END IF;
    ELSIF TG_ARGV[1] = 'gone' THEN
        IF NOT EXISTS (SELECT FROM gone) THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO public.kind_changes (kind) VALUES (TG_ARGV[0]) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION note_kind() FROM PUBLIC;

GRANT SELECT, DELETE ON kind_changes TO mooring_registry;
GRANT SELECT, UPDATE ON kind_changes_kept TO mooring_registry;
"""

INSERTED = """
CREATE TRIGGER noted_new AFTER INSERT ON {table} REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('{kind}', 'arrived');
"""
UPDATED = """
CREATE TRIGGER noted_changed AFTER UPDATE ON {table} REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('{kind}', 'arrived');
"""
# For tables with columns that change often and say little, such as the time of the last use.
UPDATED_BUT = """
CREATE TRIGGER noted_changed AFTER UPDATE ON {table}
    FOR EACH ROW WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION note_kind('{kind}');
"""
DELETED = """
CREATE TRIGGER noted_gone AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('{kind}', 'gone');
CREATE TRIGGER noted_truncated AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION note_kind('{kind}');
"""

# The kinds of new and of other changes, and the columns that count where not all of them do.
NOTED: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("devices", "registrations", "devices", ()),
    ("expected_devices", "expected_devices", "expected_devices", ()),
    ("mqtt_broker_config", "brokers", "brokers", ()),
    ("certificates", "certificates", "certificates", ()),
    ("fleets", "fleets", "fleets", ()),
    ("fleet_brokers", "fleets", "fleets", ()),
    ("jobs", "jobs", "jobs", ()),
    ("service_accounts", "service_accounts", "service_accounts", ()),
    ("revocations", "enforcement", "enforcement", ()),
    ("registration_counts", "series", "series", ()),
    ("refusal_counts", "series", "series", ()),
    ("device_events", "timelines", "timelines", ()),
    (
        "provisioning_keys",
        "provisioning_keys",
        "provisioning_keys",
        # A registration is noted by the table of devices.
        ("revision",),
    ),
    (
        "api_tokens",
        "tokens",
        "tokens",
        ("name", "role", "is_active", "expires_at", "fleet_ids", "max_devices", "devices_made"),
    ),
    ("broker_secrets", "broker_secrets", "broker_secrets", ("id", "broker_id", "prefix")),
    ("driven_brokers", "enforcement", "enforcement", ("problem", "clients", "is_partial")),
    ("processes", "processes", "processes", ("is_ready", "checks", "ended_at")),
)


def _listed(prefix: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{prefix}.{column}" for column in columns)


def upgrade() -> None:
    """Makes the tables, then the triggers."""
    for part in (PROCESSES, RIGHTS, CHANGES):
        op.execute(part)
    for table, new, other, columns in NOTED:
        op.execute(INSERTED.format(table=table, kind=new))
        if columns:
            old, changed = _listed("OLD", columns), _listed("NEW", columns)
            op.execute(UPDATED_BUT.format(table=table, kind=other, old=old, new=changed))
        else:
            op.execute(UPDATED.format(table=table, kind=other))
        op.execute(DELETED.format(table=table, kind=other))
    # No line is ever changed.
    op.execute(INSERTED.format(table="audit_log", kind="audit"))
