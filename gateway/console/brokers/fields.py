"""The settings of a broker as fields of a form, and back as the JSON that the routes take."""

import re
from collections.abc import Mapping
from typing import Any

from chassis.errors import InvalidInput
from gateway.administration.broker_types import Broker
from gateway.console.forms import Form

TEXTS = (
    *("name", "protocol", "host", "path", "description", "client_id_prefix", "region"),
    *("management", "management_url"),
)
# An empty field means that there is none.
OPTIONAL = ("username",)
NUMBERS = ("port", "keep_alive", "reconnect_period", "connect_timeout", "capacity")
# Choices of ids.
CHOSEN = ("ca_certificate_id", "client_certificate_id", "backup_broker_id")
TICKS = ("verify_certificate", "clean_session")
LABELS = "labels"
# A broker keeps these if the fields are empty.
REPLACED = ("password", "ca_cert")
FIELDS = (*TEXTS, *OPTIONAL, *NUMBERS, *CHOSEN, *TICKS, LABELS)
# The fields that devices get in their answers.
ANSWERED = frozenset(
    {
        *("protocol", "host", "port", "path", "verify_certificate", "client_id_prefix"),
        *("keep_alive", "clean_session", "reconnect_period", "connect_timeout"),
        *("ca_cert", "ca_certificate_id", "client_certificate_id"),
    }
)
NAMES = {
    "name": "Name",
    "description": "Description",
    "protocol": "Protocol",
    "host": "Host",
    "port": "Port",
    "path": "Path",
    "use_tls": "TLS",
    "verify_certificate": "Devices verify the certificate",
    "client_id_prefix": "Client id prefix",
    "keep_alive": "Keep alive",
    "clean_session": "Clean session",
    "reconnect_period": "Reconnect period",
    "connect_timeout": "Connect timeout",
    "ca_cert": "CA bundle",
    "ca_certificate_id": "CA certificate",
    "client_certificate_id": "Client certificate",
    "is_active": "Active",
    "is_default": "Default",
    "region": "Region",
    "username": "Username",
    "password": "Password",
    "labels": "Labels",
    "management": "Management",
    "management_url": "Management URL",
    "backup_broker_id": "Backup",
    "capacity": "Capacity",
}
# The values of a new broker, as the form shows them.
NEW: dict[str, Any] = {
    **dict.fromkeys((*TEXTS, *OPTIONAL, *NUMBERS, *CHOSEN, LABELS, *REPLACED), ""),
    "protocol": "mqtts",
    "port": "8883",
    "client_id_prefix": "mooring",
    "keep_alive": "60",
    "reconnect_period": "1000",
    "connect_timeout": "30000",
    "verify_certificate": True,
    "clean_session": True,
    "is_active": True,
}
LINE_BREAKS = re.compile(r"[\r\n]")


def shown(broker: Broker) -> dict[str, Any]:
    """The broker's settings as the form shows them: texts by field, and bool for boxes."""
    values: dict[str, Any] = {
        name: _line(getattr(broker, name)) for name in (*TEXTS, *OPTIONAL, *NUMBERS, *CHOSEN)
    }
    values |= {name: getattr(broker, name) for name in TICKS}
    values[LABELS] = "\n".join(f"{key}={value}" for key, value in broker.labels.items())
    return values | dict.fromkeys(REPLACED, "")


def _line(value: Any) -> str:
    """A value as a browser shows it in a field of one line."""
    return "" if value is None else LINE_BREAKS.sub("", str(value)).strip()


def typed(form: Form, ticks: tuple[str, ...] = TICKS) -> dict[str, Any]:
    """What the form contains, as `shown` has it. A field that the form lacks is not in it. A
    password is not shown again.
    """
    texts = (*TEXTS, *OPTIONAL, *NUMBERS, *CHOSEN, "ca_cert")
    values: dict[str, Any] = {name: form.text(name) for name in texts if name in form}
    if LABELS in form:
        values[LABELS] = "\n".join(form.text(LABELS).split("\r\n"))
    values |= {name: form.is_ticked(name) for name in ticks}
    return values | {"password": ""}


def changed(values: Mapping[str, Any], before: Mapping[str, Any]) -> set[str]:
    """The fields whose values differ from `before`."""
    return {name for name in FIELDS if name in values and values[name] != before.get(name)}


def body(form: Form, names: set[str]) -> dict[str, Any]:
    """The JSON values of the fields that are named, and of those that replace what is stored.
    Raises `InvalidInput`.
    """
    values: dict[str, Any] = {name: _value(form, name) for name in names}
    if form.is_ticked("remove_password"):
        values["password"] = None
    for name in REPLACED:
        if form.verbatim(name).strip():
            values[name] = form.verbatim(name)
    return values


def _value(form: Form, name: str) -> Any:
    if name in NUMBERS or name in CHOSEN:
        number = form.number(name)
        if isinstance(number, str):
            raise InvalidInput("must be a whole number", field=name)
        return number
    if name in OPTIONAL:
        return form.text(name) or None
    if name == LABELS:
        return _labels(form.text(name))
    if name in TEXTS:
        return form.text(name)
    return form.is_ticked(name)


def _labels(text: str) -> dict[str, str]:
    """The labels of lines such as site=berlin. Raises `InvalidInput`."""
    labels: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if not equals or labels.setdefault(key.strip(), value.strip()) != value.strip():
            raise InvalidInput("each line is key=value, once for each key", field=LABELS)
    return labels
