"""Converts the fields of a service account from a request to columns."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from mooring.registry.v1 import service_accounts_pb2 as pb

from chassis.errors import InvalidInput
from chassis.times import moment_of
from chassis.validation import check_text
from registry_service.credentials import username_of
from registry_service.errors import UsernameReserved
from registry_service.topics import SHARE, is_filter

USERNAME = re.compile(r"[A-Za-z0-9._@-]{1,128}")
MAX_FILTERS = 64
MAX_BROKERS = 1_000


def check_username(username: str) -> None:
    """Raises `InvalidInput`, `UsernameReserved`."""
    if not USERNAME.fullmatch(username):
        raise InvalidInput(
            "must be 1 to 128 letters, digits, dots, underscores, hyphens or @", field="username"
        )
    devices = username_of("")
    if username.startswith(devices):
        raise UsernameReserved(
            f"names that begin with {devices} are reserved for devices", field="username"
        )


def columns_of(fields: pb.ServiceAccountFields, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as columns; one that is not set is cleared. Raises `InvalidInput`."""
    columns: dict[str, Any] = {}
    for name in names:
        match name:
            case "description":
                check_text("description", fields.description, longest=2_000)
                columns["description"] = fields.description
            case "publish" | "subscribe":
                columns[name] = _filters(name, getattr(fields, name))
            case "brokers":
                is_set = fields.HasField("brokers")
                columns["broker_ids"] = _broker_ids(fields.brokers.ids) if is_set else None
            case "expires_at":
                columns["expires_at"] = moment_of(fields, "expires_at")
            case "is_active":
                if not fields.HasField("is_active"):
                    raise InvalidInput("must be true or false", field="is_active")
                columns["is_active"] = fields.is_active
            case _:
                raise InvalidInput("names an unknown field of an account", field="update_mask")
    return columns


def _filters(field: str, given: Sequence[str]) -> list[str]:
    if len(given) > MAX_FILTERS:
        raise InvalidInput(f"at most {MAX_FILTERS}", field=field)
    for index, text in enumerate(given):
        if not is_filter(text):
            raise InvalidInput("must be an MQTT topic filter", field=f"{field}[{index}]")
        if text.startswith(SHARE):
            # A client that may subscribe to a filter may also use a shared subscription to it.
            raise InvalidInput(
                "must be the filter itself, not a share of it", field=f"{field}[{index}]"
            )
    return list(dict.fromkeys(given))


def _broker_ids(given: Sequence[int]) -> list[int]:
    if not 1 <= len(given) <= MAX_BROKERS:
        raise InvalidInput(f"1 to {MAX_BROKERS}", field="broker_ids")
    return list(dict.fromkeys(given))
