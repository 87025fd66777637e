"""The settings of a broker, and their checks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from chassis.errors import InvalidInput
from chassis.hosts import check_host, is_name
from chassis.validation import check_range, check_text

TLS_OF_PROTOCOL = {"mqtt": False, "mqtts": True, "ws": False, "wss": True}
WEBSOCKET_PROTOCOLS = ("ws", "wss")
MANAGEMENTS = ("", "mosquitto", "emqx", "rabbitmq")
# At this kind of broker, Mooring configures each client. The other kinds ask Mooring.
TOLD_MANAGEMENT = "mosquitto"
# A Mosquitto is managed over MQTT.
HTTP_MANAGEMENTS = ("emqx", "rabbitmq")
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1

# The keys of labels, as in Kubernetes: a name, with an optional domain before it.
LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
MAX_LABELS = 64
PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]{0,254}")
# A URL (RFC 3986, section 3) without user, query and fragment, because paths are appended to it.
MANAGEMENT_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)?"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The columns of `mqtt_broker_config` that operators set."""

    name: str
    host: str
    port: int
    description: str = ""
    protocol: str = "mqtt"
    path: str = ""
    # None: the protocol decides.
    use_tls: bool | None = None
    verify_certificate: bool = True
    client_id_prefix: str = "mooring"
    keep_alive: int = 60  # seconds
    clean_session: bool = True
    reconnect_period: int = 1_000  # milliseconds
    connect_timeout: int = 30_000  # milliseconds
    is_active: bool = True
    region: str = ""
    username: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    management: str = ""
    management_url: str = ""
    # The broker that serves while this one is down, if no pool is in charge.
    backup_broker_id: int | None = None
    # How many devices may get it as their home; None for any number.
    capacity: int | None = None


# Names of fields, and a function that raises `InvalidInput` if their values are not allowed.
Rule = tuple[tuple[str, ...], Callable[[Settings], object]]


def url_of(protocol: str, host: str, port: int, path: str) -> str:
    """The broker's URL, with an IPv6 host in brackets (RFC 3986, section 3.2.2)."""
    return (
        f"{protocol}://[{host}]:{port}{path}"
        if ":" in host
        else f"{protocol}://{host}:{port}{path}"
    )


def check(settings: Settings, before: Settings | None = None) -> None:
    """Raises `InvalidInput`, which names the field and says why.

    `before` is what the broker has now. A rule is applied only if one of its fields changes, so
    that a value from an earlier rule, or from SQL, does not prevent other changes.
    """
    for fields, rule in RULES:
        if before is None or any(
            getattr(settings, name) != getattr(before, name) for name in fields
        ):
            rule(settings)


def check_password(password: str) -> None:
    """Raises `InvalidInput`, without the password, for a password that no broker accepts."""
    check_text("password", password, shortest=1, longest=4_096)


def check_login(
    settings: Settings,
    *,
    has_password: bool,
    before: Settings | None = None,
    had_password: bool = False,
) -> None:
    """Raises `InvalidInput` for a password without a username (MQTT 3.1.1, section 3.1.2.9).

    A managed broker needs both. As in `check`, values that do not change are not checked.
    """
    if before is not None:
        old = (before.management, before.username, had_password)
        if old == (settings.management, settings.username, has_password):
            return
    if settings.management and (settings.username is None or not has_password):
        raise InvalidInput("needs a username and a password", field="management")
    if has_password and settings.username is None:
        raise InvalidInput("is needed where there is a password", field="username")


def check_labels(labels: Mapping[str, str], *, field: str = "labels") -> None:
    """Raises `InvalidInput` for `field`."""
    if len(labels) > MAX_LABELS:
        raise InvalidInput(f"there may be at most {MAX_LABELS}", field=field)
    for key, value in labels.items():
        domain, slash, name = key.rpartition("/")
        if not LABEL_NAME.fullmatch(name) or (slash and not is_name(domain)):
            raise InvalidInput(
                "a key is 1 to 63 letters, digits, dots, underscores or hyphens, a letter or digit"
                " at both ends; a domain and a slash may stand before it",
                field=field,
            )
        check_text(field, value, longest=255)


def _check_protocol(settings: Settings) -> None:
    if settings.protocol not in TLS_OF_PROTOCOL:
        raise InvalidInput("must be mqtt, mqtts, ws or wss", field="protocol")


def _check_tls(settings: Settings) -> None:
    if settings.use_tls not in (None, TLS_OF_PROTOCOL[settings.protocol]):
        raise InvalidInput(f"disagrees with the protocol {settings.protocol}", field="use_tls")


def _check_path_has_use(settings: Settings) -> None:
    if settings.path and settings.protocol not in WEBSOCKET_PROTOCOLS:
        raise InvalidInput("only websockets have a path", field="path")


def _check_path(settings: Settings) -> None:
    if settings.path and not PATH.fullmatch(settings.path):
        raise InvalidInput("must be a URL's path that begins with a slash", field="path")


def _check_username(settings: Settings) -> None:
    if settings.username is not None:
        check_text("username", settings.username, shortest=1, longest=255)


def _check_management(settings: Settings) -> None:
    management, url = settings.management, settings.management_url
    if management not in MANAGEMENTS:
        raise InvalidInput("must be mosquitto, emqx, rabbitmq or empty", field="management")
    check_text("management_url", url, longest=2_000)
    if management in HTTP_MANAGEMENTS:
        _check_management_url(url)
    elif url:
        raise InvalidInput("is for the managements emqx and rabbitmq", field="management_url")


def _check_management_url(url: str) -> None:
    found = MANAGEMENT_URL.fullmatch(url)
    if found is None or not 1 <= int(found["port"] or 1) <= 65_535:
        raise InvalidInput(
            "must be a URL of https or http: a host, maybe a port and a path, and nothing else",
            field="management_url",
        )
    host = found["host"].strip("[]")
    address = check_host(host, field="management_url")
    # Secrets are sent to this URL. The database has the same rule.
    is_here = host in ("localhost", "::1") or (
        isinstance(address, IPv4Address) and address.is_loopback
    )
    if found["scheme"] == "http" and not is_here:
        raise InvalidInput(
            "must be https, but for an address of this machine", field="management_url"
        )


def _text(name: str, *, shortest: int = 0, longest: int) -> Rule:
    def rule(settings: Settings) -> None:
        check_text(name, getattr(settings, name), shortest=shortest, longest=longest)

    return (name,), rule


def _range(name: str, least: int, most: int) -> Rule:
    def rule(settings: Settings) -> None:
        value = getattr(settings, name)
        # Only optional settings can be None.
        if value is not None:
            check_range(name, value, least, most)

    return (name,), rule


# The rules in the order in which they are applied, each with its fields.
RULES: tuple[Rule, ...] = (
    _text("name", shortest=1, longest=255),
    _text("description", longest=2_000),
    _text("client_id_prefix", longest=64),
    _text("region", longest=64),
    (("host",), lambda settings: check_host(settings.host, field="host")),
    (("protocol",), _check_protocol),
    (("protocol", "use_tls"), _check_tls),
    (("protocol", "path"), _check_path_has_use),
    (("path",), _check_path),
    _range("port", 1, 65_535),
    # MQTT 5.0, section 3.1.2.10: two bytes.
    _range("keep_alive", 0, 65_535),
    _range("reconnect_period", 0, MAX_INT32),
    _range("connect_timeout", 1, MAX_INT32),
    (("username",), _check_username),
    (("labels",), lambda settings: check_labels(settings.labels)),
    (("management", "management_url"), _check_management),
    _range("backup_broker_id", 1, MAX_INT32),
    _range("capacity", 0, MAX_INT64),
)
