"""The versions of brokers that tests start; docs/brokers/README.md says what was tested with which.

The first version of each broker is the default one: the one of this machine, or of its Debian.
Tests that are marked `every_version` also run with the others, from other suites of Debian.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """`number`, or a later one of the same major version, because a suite of Debian gets
    updates.
    """

    broker: str
    number: str
    # The suite of Debian; empty for the broker of this machine.
    suite: str = ""

    @property
    def is_everyday(self) -> bool:
        return not self.suite

    def is_at_least(self, number: str) -> bool:
        return numbers(self.number) >= numbers(number)

    def admits(self, running: str) -> bool:
        """Whether a broker of version `running` is the expected one."""
        found, meant = numbers(running), numbers(self.number)
        return found[0] == meant[0] and found >= meant


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


MOSQUITTO = (
    Version("mosquitto", "2.0.11"),
    Version("mosquitto", "2.0.21", "trixie"),
    Version("mosquitto", "2.1.2", "sid"),
)
RABBITMQ = (
    Version("rabbitmq", "3.10.8"),
    Version("rabbitmq", "4.0.5", "trixie"),
    Version("rabbitmq", "4.3.6", "sid"),
)
VERSIONS = {"mosquitto": MOSQUITTO, "rabbitmq": RABBITMQ}
