"""The texts that devices have sent as their regions, and which of them exist.

A guess registers devices without reading, so it needs to know whether a text is a region. That is
known as of a version of brokers and fleets, which changes with every change of a region.
"""

from collections.abc import Collection

from registry_service.provisioning.records import Known

# Devices can invent texts.
MAX_TEXTS = 10_000


class KnownRegions:
    """What was read as of one version."""

    def __init__(self) -> None:
        self._version = ""
        self._texts: set[str] = set()
        self._regions: frozenset[str] = frozenset()

    def read(self, asked: Collection[str], known: Known) -> None:
        """Adds what was read."""
        if known.placement_version != self._version or len(self._texts) > MAX_TEXTS:
            self._version = known.placement_version
            self._texts, self._regions = set(), frozenset()
        self._texts.update(asked)
        if not known.regions <= self._regions:
            self._regions |= known.regions

    @property
    def found(self) -> frozenset[str]:
        """The regions that exist."""
        return self._regions

    def knows(self, text: str, version: str) -> bool:
        """Whether it was read as of this version if the text is a region."""
        return not text or (version == self._version and text in self._texts)
