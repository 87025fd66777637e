"""Jobs in words: what they do, for which devices, and how they ended."""

from typing import Any

from gateway.administration.job_types import Job
from gateway.console.broker_names import BrokerNames
from gateway.console.device_conditions import Conditions, in_words, text_of

# States with the kind and the icon of their pills.
STATES = {
    "draft": ("Draft", "plain", "edit"),
    "running": ("Running", "info", "play"),
    "paused": ("Paused", "warn", "pause"),
    "done": ("Done", "ok", "check"),
    "cancelled": ("Cancelled", "off", "off"),
}
OUTCOMES = {
    "pending": ("not reached yet", "off"),
    "moved": ("moved", "ok"),
    "unchanged": ("had this pin already", "off"),
    "undone": ("got their previous pin back", "info"),
    "changed_since": ("have another pin since, and keep it", "warn"),
    "not_restored": ("could not get their previous pin back", "bad"),
    "INVALID_ROW": ("lines cannot be read", "bad"),
    "UUID_REPEATED": ("lines repeat a uuid", "bad"),
    "DEVICE_NOT_FOUND": ("lines name no device", "bad"),
    "BROKER_UNKNOWN": ("refused: there is no such broker", "bad"),
    "BROKER_INACTIVE": ("refused: the broker is inactive", "bad"),
    "BROKER_NOT_ALLOWED": ("refused: their fleet may not use the broker", "bad"),
}


def purpose(job: Job, brokers: BrokerNames) -> str:
    """What the job does."""
    if job.mqtt_broker_id is None:
        return "Remove pins"
    return f"Pin to {brokers.of(job.mqtt_broker_id)}"


def conditions_of(job: Job) -> Conditions | None:
    """The conditions of the job's filter; None if it has a list."""
    if job.filter is None:
        return None
    pairs: list[tuple[str, str]] = []
    for name, value in job.filter.items():
        values = value if isinstance(value, list) else [value]
        pairs += [(name, _text(name, one)) for one in values]
    return Conditions(tuple(pairs))


def _text(name: str, value: Any) -> str:
    if value is None and name.endswith("broker_id"):
        return "0"
    return value.isoformat() if hasattr(value, "isoformat") else text_of(value)


def devices_in_words(job: Job, brokers: BrokerNames) -> list[str]:
    """Which devices the job is for."""
    conditions = conditions_of(job)
    if conditions is None:
        return ["the devices of a list"]
    return [in_words(name, value, brokers) for name, value in conditions.pairs] or ["all devices"]
