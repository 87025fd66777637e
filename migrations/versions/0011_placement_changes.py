"""A log of changes of everything that places devices: broker services with a copy in memory read
only the changes.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

# One line for each statement. A transaction that changes brokers, certificates or fleets locks the
# row of placement_version until its commit, so lines are numbered in the order of the commits.
TABLES = """
CREATE TABLE placement_changes (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The placement_version after the change.
    version uuid NOT NULL UNIQUE,
    kind    text NOT NULL CHECK (kind IN ('broker', 'certificate', 'fleet')),
    -- The id of the object; null for all objects of the kind.
    ids     text[]
);
"""

# The arguments of the triggers say which kind it is, and which column is its id.
TRIGGERS = """
CREATE OR REPLACE FUNCTION announce_placement() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    touched text[];
    became uuid;
    line bigint;
BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        EXECUTE format(
            'SELECT coalesce(array_agg(DISTINCT id::text), ''{}'') FROM ' || CASE TG_OP
                WHEN 'INSERT' THEN '(SELECT %1$I FROM arrived)'
                WHEN 'DELETE' THEN '(SELECT %1$I FROM gone)'
                ELSE '(SELECT %1$I FROM arrived UNION ALL SELECT %1$I FROM gone)'
            END || ' AS found (id)', TG_ARGV[1]
        ) INTO touched;
        IF touched = '{}' THEN
            RETURN NULL;
        END IF;
    END IF;
    IF cardinality(touched) > 100 THEN
        touched := NULL;  -- reading all is as fast
    END IF;
    UPDATE public.placement_version SET version = gen_random_uuid() RETURNING version INTO became;
    INSERT INTO public.placement_changes (version, kind, ids) VALUES (became, TG_ARGV[0], touched)
    RETURNING id INTO line;
    DELETE FROM public.placement_changes WHERE id <= line - 1000;
    PERFORM pg_notify('mooring_placement', '');
    RETURN NULL;
END $$;
"""

TRIGGERS_OF = """
DROP TRIGGER announced ON {table};
CREATE TRIGGER announced_new AFTER INSERT ON {table} REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION announce_placement('{kind}', '{column}');
CREATE TRIGGER announced_changed AFTER UPDATE ON {table}
    REFERENCING OLD TABLE AS gone NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION announce_placement('{kind}', '{column}');
CREATE TRIGGER announced_gone AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION announce_placement('{kind}', '{column}');
CREATE TRIGGER announced_truncated AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION announce_placement('{kind}', '{column}');
"""
ANNOUNCED = (
    ("mqtt_broker_config", "broker", "id"),
    ("certificates", "certificate", "id"),
    ("fleets", "fleet", "id"),
    ("fleet_brokers", "fleet", "fleet_id"),
)

GRANTS = """
GRANT SELECT ON placement_changes TO mooring_broker;
"""


def upgrade() -> None:
    """Makes the log, and writes to it at every change that is announced."""
    op.execute(TABLES)
    op.execute(TRIGGERS)
    for table, kind, column in ANNOUNCED:
        op.execute(TRIGGERS_OF.format(table=table, kind=kind, column=column))
    op.execute(GRANTS)
