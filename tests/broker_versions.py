"""The versions of brokers that tests start; docs/brokers/README.md says what was tested with which.

The first of each broker is the one of every day: what this machine has, or its Debian. Tests that
are marked `every_version` run with the others too, which come from other suites of Debian.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """`number` or a later one of the same major version, for Debian goes on in a suite."""

    broker: str
    number: str
    # Of Debian; empty for what this machine has.
    suite: str = ""

    @property
    def is_everyday(self) -> bool:
        return not self.suite

    def is_at_least(self, number: str) -> bool:
        return numbers(self.number) >= numbers(number)

    def admits(self, running: str) -> bool:
        """Whether a broker that says it is `running` is the one that is meant."""
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
