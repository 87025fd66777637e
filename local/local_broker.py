"""The local broker as our own to drive: the Mosquitto that is started here stands behind it."""

from datetime import datetime
from typing import Any

from local.errors import CannotRun
from local.mosquitto import Login
from local.seed import LOCAL_BROKER, Administrator

MANAGEMENT = "mosquitto"


def entrusted(admin: Administrator, login: Login, port: int) -> int | None:
    """The id of the local broker, which is driven with `login` from now on, at `port`.

    None where it is not ours to drive: it is deleted, inactive or elsewhere, or an operator has
    said otherwise how it is driven. The password is handed over each time, for nobody can read it
    back; where nothing differs, nothing changes. Raises `CannotRun`.
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
    """When the process that drives brokers looked at this one last.

    As seconds since 1970; None for never, or no answer.
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
