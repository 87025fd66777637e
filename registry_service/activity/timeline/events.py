"""Events of devices in memory, until they are written.

Equal events share an entry with a count, so a device that is refused in a loop takes one. The
number of entries is bounded, for each device and in all, and refusals cannot take the room of
other events. What is beyond the limits is counted for its device, and dropped.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from msgspec import Struct
from prometheus_client import Counter

from chassis.hosts import unwrapped

REGISTRATION_REFUSED = "registration_refused"
SETTINGS_REFUSED = "settings_refused"
ROTATION_REFUSED = "rotation_refused"
CONNECT_REFUSED = "connect_refused"
CONNECTED = "connected"
ANSWER_CHANGED = "answer_changed"
CREDENTIALS_ROTATED = "credentials_rotated"
CREDENTIALS_REVOKED = "credentials_revoked"
# The kinds of reports of devices, by the reported state.
REPORTED = {"connected": "reported_connected", "failed": "reported_failed"}
DROPPED = "dropped"
REFUSALS = frozenset({REGISTRATION_REFUSED, SETTINGS_REFUSED, ROTATION_REFUSED, CONNECT_REFUSED})

# The limits of refusals, and of other events: in all, and for one device. The database keeps as
# many for each device (`note_device_events` in the migrations).
MAX_EVENTS = 10_000
MAX_OF_DEVICE = 25
# For how many devices dropped events are counted.
MAX_DROPPED = 20_000

LOST = Counter(
    "mooring_timeline_events_dropped_total",
    "Events that are missing in the timelines of devices, because too many waited in memory",
)


class Client(Struct, frozen=True, cache_hash=True):
    """A device by its uuid; by its MQTT username too, if a broker named it.

    The uuid is empty for a username that contains none: it may be that of an imported device.
    """

    uuid: str
    username: str = ""


class Event(Struct, frozen=True, cache_hash=True):
    """What equal events have in common. `what` is the reason of a refusal, or a generation."""

    client: Client
    kind: str
    what: str = ""
    # 0 for none.
    broker_id: int = 0
    # Empty if it is not known.
    address: str = ""


class Times(Struct):
    """How often an event happened, and when (Unix seconds). `details` are those of the first."""

    count: int
    first_at: float
    last_at: float
    details: Mapping[str, Any] | None = None


class Room:
    """The entries of some kinds of events."""

    def __init__(self, max_events: int, max_of_device: int) -> None:
        """Empty."""
        self._max_events = max_events
        self._max_of_device = max_of_device
        self._held: dict[Event, Times] = {}
        self._of_device: dict[Client, int] = {}

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._held)

    def repeat(self, event: Event, now: float) -> bool:
        """Counts an event once more if it has an entry; returns whether it has one."""
        held = self._held.get(event)
        if held is None:
            return False
        held.count += 1
        # The clock may have been set back.
        if now > held.last_at:
            held.last_at = now
        elif now < held.first_at:
            held.first_at = now
        return True

    def join(self, event: Event, times: Times) -> bool:
        """Adds events; returns whether there was room."""
        held = self._held.get(event)
        if held is not None:
            held.count += times.count
            held.first_at = min(held.first_at, times.first_at)
            held.last_at = max(held.last_at, times.last_at)
            return True
        known = self._of_device.get(event.client, 0)
        if known >= self._max_of_device or len(self._held) >= self._max_events:
            return False
        self._held[event] = times
        self._of_device[event.client] = known + 1
        return True

    def take(self, size: int) -> dict[Event, Times]:
        """Removes the oldest entries, at most `size`."""
        taken: dict[Event, Times] = {}
        while self._held and len(taken) < size:
            event = next(iter(self._held))
            taken[event] = self._held.pop(event)
            self._of_device[event.client] -= 1
            if not self._of_device[event.client]:
                del self._of_device[event.client]
        return taken


class Events:
    """The events that are not written yet. Times are Unix times in seconds."""

    def __init__(
        self,
        *,
        events: int = MAX_EVENTS,
        of_device: int = MAX_OF_DEVICE,
        dropped: int = MAX_DROPPED,
    ) -> None:
        """The limits are those of refusals, and again those of other events."""
        self._refusals = Room(events, of_device)
        self._others = Room(events, of_device)
        # Events that were dropped, by their device.
        self._dropped = Room(dropped, 1)

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._refusals) + len(self._others) + len(self._dropped)

    def add(self, event: Event, now: float, details: Mapping[str, Any] | None = None) -> None:
        """Adds an event."""
        room = self._refusals if event.kind in REFUSALS else self._others
        # Most events of a storm are repeated, so this comes first.
        if not room.repeat(event, now):
            self._join(event, Times(1, now, now, details))

    def take(self, size: int) -> dict[Event, Times]:
        """Removes up to `size` entries. The caller must write them, or `put_back` them."""
        taken = self._others.take(size // 2)
        taken |= self._refusals.take(size // 2)
        taken |= self._others.take(size - len(taken))
        return taken | self._dropped.take(size - len(taken))

    def put_back(self, taken: Mapping[Event, Times]) -> None:
        """Puts back entries that could not be written."""
        for event, times in taken.items():
            self._join(event, times)

    def _join(self, event: Event, times: Times) -> None:
        if event.kind == DROPPED:
            self._dropped.join(event, times)
            return
        room = self._refusals if event.kind in REFUSALS else self._others
        if not room.join(event, times):
            LOST.inc(times.count)
            times.details = None
            self._dropped.join(Event(event.client, DROPPED), times)


def rows_of(taken: Iterable[tuple[Event, Times]]) -> list[dict[str, Any]]:
    """The entries as `note_device_events` takes them."""
    return [
        {
            "uuid": event.client.uuid,
            "username": event.client.username,
            "kind": event.kind,
            "what": event.what,
            "broker_id": event.broker_id,
            "address": event.address,
            "details": times.details,
            "count": times.count,
            "first_at": times.first_at,
            "last_at": times.last_at,
        }
        for event, times in taken
    ]


# Devices of a fleet have few addresses.
@lru_cache(maxsize=4_096)
def address_of(text: str) -> str:
    """The IP address in its usual form, without a zone; empty if `text` is none.

    An IPv4-mapped IPv6 address is its IPv4 address (RFC 4291, section 2.5.5.2).
    """
    try:
        return str(unwrapped(ip_address(text.partition("%")[0])))
    except ValueError:
        return ""


def address_of_peer(peer: str) -> str:
    """The IP address of an address and a port; empty if there is none."""
    return address_of(peer.rpartition(":")[0].strip("[]"))
