-- The least that a durable transaction costs. One that wrote nothing would not wait for the disk;
-- a transactional message is in the log only, and its commit waits until the log is flushed.
BEGIN;
SELECT pg_logical_emit_message(true, '', '');
COMMIT;
