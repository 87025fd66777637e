"""Which tests of brokers may run, and what each gets of the broker's row."""

from collections.abc import AsyncGenerator, Callable

from broker_service.brokers.testing.outcomes import Outcome
from broker_service.brokers.testing.trial import Target, trial
from broker_service.database import Row, ca_cert_of
from broker_service.destinations import MQTT, destination_of
from broker_service.errors import SecretUnreadable, TestUnderWay
from broker_service.passwords import problem_of
from chassis.address_policy import AddressPolicy

# How many tests this process runs at the same time. There is one at a time for each host and port,
# so that nobody uses tests to load a broker.
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
            async for outcome in trial(self._target(row), self._policy):
                yield outcome
        finally:
            self._under_way.discard(place)

    def _target(self, row: Row) -> Target:
        username, password, problem = row["username"], None, None
        # A login for a management API is sent to no other port.
        if destination_of(row, ca_cert_of(row)).kind != MQTT:
            username = None
        if username is not None and row["password_encrypted"] is not None:
            try:
                password = self._password_of(row)
            except SecretUnreadable as error:
                problem = problem_of(row["id"], error)
        return Target(
            broker_id=row["id"],
            protocol=row["protocol"],
            host=row["host"],
            port=row["port"],
            path=row["path"],
            use_tls=row["use_tls"],
            verify_certificate=row["verify_certificate"],
            ca_pem=ca_cert_of(row),
            username=username,
            password=password,
            password_problem=problem,
        )
