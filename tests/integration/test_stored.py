"""A change of the database is noticed, when it is committed."""

import psycopg

from tests.stack import Database
from tests.stored import Stored

CHANGES = (
    "INSERT INTO mqtt_broker_config (name, host, port) VALUES ('one', 'h', 1883)",
    "UPDATE mqtt_broker_config SET host = 'i'",
    "DELETE FROM mqtt_broker_config",
)


def test_every_committed_change_is_noticed_and_no_other(database: Database) -> None:
    with (
        psycopg.connect(database.url("mooring"), autocommit=True) as connection,
        psycopg.connect(database.url("mooring")) as other,
    ):
        stored = Stored(connection)
        for statement in CHANGES:
            for is_kept in (False, True):
                before = stored.now()
                assert stored.now() == before
                other.execute(statement.encode())
                assert stored.now() == before
                if is_kept:
                    other.commit()
                else:
                    other.rollback()
                assert (stored.now() == before) == (not is_kept)
