"""Which tests of brokers may run."""

from collections.abc import AsyncGenerator, Callable

from broker_service.brokers.testing.outcomes import Outcome
from broker_service.brokers.testing.targets import target_of
from broker_service.brokers.testing.trial import trial
from broker_service.database import Row
from broker_service.errors import TestUnderWay
from chassis.address_policy import AddressPolicy

# How many tests this process runs at the same time. There is one at a time for each host and port,
# so that tests do not load a broker.
MAX_TRIALS = 4


class Trials:
    """The tests of this process."""

    def __init__(self, password_of: Callable[[Row], str], policy: AddressPolicy) -> None:
        """`password_of` decrypts the password of a row. Tests connect to addresses that `policy`
        allows.
        """
        self._password_of = password_of
        self._policy = policy
        self._under_way: set[tuple[str, int]] = set()

    async def run(self, row: Row) -> AsyncGenerator[Outcome, None]:
        """Tests the broker of a row with its certificates. Raises `TestUnderWay`."""
        place = row["host"].lower(), row["port"]
        if place in self._under_way:
            raise TestUnderWay("this broker is being tested already")
        if len(self._under_way) >= MAX_TRIALS:
            raise TestUnderWay(f"{MAX_TRIALS} brokers are being tested already")
        self._under_way.add(place)
        try:
            async for outcome in trial(target_of(row, self._password_of), self._policy):
                yield outcome
        finally:
            self._under_way.discard(place)
