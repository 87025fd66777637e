-- The least that a durable transaction costs. A transaction that writes nothing does not wait for
-- the disk. A transactional message is only in the log, and its commit waits for the flush of the
-- log.
BEGIN;
SELECT pg_logical_emit_message(true, '', '');
COMMIT;
