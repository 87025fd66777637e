"""Conditions on devices in the address of a page: links that add or remove one, and the filter of a
job with the same conditions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qsl, urlencode

from chassis.errors import InvalidInput
from gateway.administration.device_filters import DeviceFilter
from gateway.administration.fields import MAX_INT32
from gateway.console.broker_names import BrokerNames

NAMES = DeviceFilter.__struct_fields__
NOT = "not_"
MAX_CONDITIONS = 1_000
# Longer numbers are no ids.
MAX_DIGITS = 18
TRUTHS = frozenset({"is_active", "is_online", "is_pinned", "short_api_key"})
BROKERS = frozenset({"mqtt_broker_id", "told_broker_id"})
NUMBERS = BROKERS | {"pool_id", "credential_key_id"}
# An empty value of the others means devices without one.
NEVER_EMPTY = frozenset({"search", "fleet_id", "uuid_prefix", "device_type"}) | TRUTHS

LABELS = {
    "search": "Uuid or name begins with",
    "fleet_id": "Fleet",
    "device_type": "Type",
    "region": "Region",
    "mqtt_broker_id": "Pin",
    "pool_id": "Pool",
    "told_broker_id": "Broker of the last answer",
    "uuid_prefix": "Uuid begins with",
    "provisioned_by_key_id": "Provisioning key",
    "registered_since": "Registered since",
    "registered_before": "Registered before",
    "credential_key_id": "Server key",
}
STATES = {
    "is_active": ("Active", "Disabled"),
    "is_online": ("Online", "Offline"),
    "is_pinned": ("With a pin", "Without a pin"),
    "short_api_key": ("Short API key", "No short API key"),
}


@dataclass(frozen=True, slots=True)
class Chip:
    """A condition in words, and the query without it."""

    text: str
    query: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions, as names and values in a query."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Conditions":
        """Keeps the known conditions of `pairs`, without the empty fields of a form.

        They are sorted by name, because Litestar gives the names of a query in any order.
        """
        known = dict.fromkeys(
            (name, value)
            for name, value in pairs
            if name in NAMES and (value or plain(name) not in NEVER_EMPTY)
        )
        return cls(tuple(sorted(known, key=itemgetter(0))))

    @classmethod
    def of_query(cls, query: str) -> "Conditions":
        """The conditions in a field of a form. Raises `InvalidInput` for too many."""
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_CONDITIONS)
        except ValueError:
            raise InvalidInput("has too many conditions", field="conditions") from None
        return cls.of(pairs)

    @property
    def query(self) -> str:
        """The conditions as a query."""
        return urlencode(self.pairs)

    @property
    def search(self) -> str:
        """The text that a person searches for; empty if there is none."""
        return next((value for name, value in self.pairs if name == "search"), "")

    @property
    def broker_ids(self) -> list[int]:
        """The ids of brokers in the conditions."""
        return [
            int(value)
            for name, value in self.pairs
            if plain(name) in BROKERS and is_number(value) and int(value) <= MAX_INT32
        ]

    def has(self, name: str, value: Any) -> bool:
        """Whether this is one of the conditions."""
        return (name, text_of(value)) in self.pairs

    def plus(self, name: str, value: Any) -> str:
        """The query with one more condition. It replaces the previous one, unless it excludes."""
        kept = [
            pair
            for pair in self.pairs
            if (name.startswith(NOT) or pair[0] != name) and pair != (name, text_of(value))
        ]
        return urlencode([*kept, (name, text_of(value))])

    def minus(self, name: str, value: Any) -> str:
        """The query without a condition."""
        return urlencode([pair for pair in self.pairs if pair != (name, text_of(value))])

    def chips(self, brokers: BrokerNames) -> list[Chip]:
        """Every condition but the search, which has a field of its own."""
        return [
            Chip(in_words(name, value, brokers), self.minus(name, value))
            for name, value in self.pairs
            if name != "search"
        ]

    def as_filter(self) -> dict[str, Any]:
        """The filter as the JSON of a job. A value that cannot be read stays a text, so that the
        route refuses it by its name.
        """
        found: dict[str, Any] = {}
        for name, value in self.pairs:
            if name.startswith(NOT):
                found.setdefault(name, []).append(_json(name, value))
            else:
                found[name] = _json(name, value)
        return found


def plain(name: str) -> str:
    """The name without its negation."""
    return name.removeprefix(NOT)


def text_of(value: Any) -> str:
    """A value of the API in a query: 0 stands for no broker, and an empty text for no text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _json(name: str, value: str) -> Any:
    if plain(name) in TRUTHS:
        return {"true": True, "false": False}.get(value, value)
    if plain(name) in NUMBERS:
        return (int(value) or None) if is_number(value) else value
    return (value or None) if plain(name) == "provisioned_by_key_id" else value


def is_number(value: str) -> bool:
    """Whether this can be the id of a broker."""
    return value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS


def in_words(name: str, value: str, brokers: BrokerNames) -> str:
    """A condition as a person reads it."""
    if name in STATES and value in ("true", "false"):
        return STATES[name][value == "false"]
    label = LABELS.get(plain(name), plain(name))
    shown = value or "none"
    if plain(name) in BROKERS and is_number(value):
        shown = brokers.of(int(value) or None)
    return f"{label}: {'not ' if name.startswith(NOT) else ''}{shown}"
