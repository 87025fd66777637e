-- Revokes rights that only a superuser may revoke from PUBLIC, in the database of Mooring. `make run`
-- does it; for a PostgreSQL of your own a superuser runs it once, before or after the migrations:
--   psql -d mooring -f migrations/as_superuser.sql
-- Mooring needs neither large objects nor advisory locks. A message in the write-ahead log takes
-- disk space and bandwidth; the owner can grant the right to write one.
DO $$
DECLARE taken regprocedure;
BEGIN
    FOR taken IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND (proname ~ '^(lo_|loread$|lowrite$|pg_(try_)?advisory_)'
               OR proname IN ('pg_logical_emit_message', 'pg_export_snapshot'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', taken);
    END LOOP;
    FOR taken IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = 'pg_logical_emit_message'
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mooring WITH GRANT OPTION', taken);
    END LOOP;
END $$;
