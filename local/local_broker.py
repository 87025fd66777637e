"""The broker "Local Broker": Mooring manages the Mosquitto that is started here."""

from datetime import datetime
from typing import Any

from local.errors import CannotRun
from local.mosquitto import Login
from local.seed import LOCAL_BROKER, Administrator

MANAGEMENT = "mosquitto"


def entrusted(admin: Administrator, login: Login, port: int) -> int | None:
    """Makes Mooring manage the local broker at `port` with `login`, and returns its id.

    Returns None if it must not be managed from here: it is deleted, inactive or at another address,
    or an operator has set another management. The password is sent each time, because it cannot be
    read; a request without differences changes nothing. Raises `CannotRun`.
    """
    ours = next((one for one in admin.brokers() if one["name"] == LOCAL_BROKER), None)
    if ours is None or not (_is_as_made(ours, port) or _is_driven(ours, login)):
        return None
    admin.ask(
        "PATCH",
        f"/brokers/{ours['id']}",
        {
            "port": port,
            "management": MANAGEMENT,
            "username": login.username,
            "password": login.password,
        },
    )
    return int(ours["id"])


def looked_at(admin: Administrator, broker_id: int) -> float | None:
    """When the worker last checked this broker, in seconds since 1970.

    None if it never did, or if there is no answer.
    """
    try:
        _, state = admin.ask("GET", f"/brokers/{broker_id}/enforcement")
    except CannotRun:
        return None
    moment = state["looked_at"]
    return None if moment is None else datetime.fromisoformat(moment).timestamp()


def _is_here(broker: dict[str, Any]) -> bool:
    return broker["is_active"] and (broker["protocol"], broker["host"]) == ("mqtt", "localhost")


def _is_as_made(broker: dict[str, Any], port: int) -> bool:
    has_login = bool(broker["username"]) or broker["has_password"]
    return _is_here(broker) and broker["port"] == port and not (broker["management"] or has_login)


def _is_driven(broker: dict[str, Any], login: Login) -> bool:
    ours = (MANAGEMENT, login.username)
    return _is_here(broker) and (broker["management"], broker["username"]) == ours
