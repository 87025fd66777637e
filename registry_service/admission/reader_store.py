"""Ends sessions of the role `mqtt_reader` that last too long.

Brokers hold its password. A transaction that stays open keeps the database from cleaning up, and a
session can change the timeouts that its role was given. So the session is ended.
"""

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.database import writing

log = structlog.get_logger(__name__)

END = text("SELECT end_long_readers(:transaction_s, :session_s)")

ENDED = Counter("mooring_reader_sessions_ended_total", "Sessions of mqtt_reader that were ended")


class ReaderStore:
    """The sessions of mqtt_reader that the registry may end."""

    def __init__(self, engine: AsyncEngine, transaction_s: float, session_s: float) -> None:
        """`engine` connects as mooring_registry. Sessions with older transactions, and older
        sessions, are ended.
        """
        self._engine = engine
        self._ages = {"transaction_s": transaction_s, "session_s": session_s}

    async def end(self) -> int:
        """Ends these sessions, and returns their number. Raises `Unavailable`, and `DBAPIError` if
        the database's owner is not a member of mqtt_reader.
        """
        async with writing(self._engine) as connection:
            ended = int(await connection.scalar(END, self._ages) or 0)
        if ended:
            ENDED.inc(ended)
            log.warning("sessions of mqtt_reader lasted too long", ended=ended, **self._ages)
        return ended
