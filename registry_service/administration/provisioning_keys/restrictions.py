"""Converts the restrictions of a key from a request to columns."""

from collections.abc import Callable, Iterable
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any

from mooring.registry.v1 import provisioning_keys_pb2 as pb

from chassis.errors import InvalidInput
from chassis.validation import check_identifier, check_text

MAX_DEVICE_TYPES = 100
MAX_NETWORKS = 100
# Each registry process keeps the keys that devices have used in memory, with their lists of uuids.
MAX_UUIDS = 1_000

_MAPPED = IPv6Network("::ffff:0:0/96")

# The columns, by their names in the message.
COLUMNS = {
    "device_types": "allowed_device_types",
    "source_networks": "source_networks",
    "uuids": "allowed_uuids",
    "uuid_prefix": "uuid_prefix",
    "only_expected": "only_expected",
}


def columns_of(message: pb.Restrictions, names: Iterable[str]) -> dict[str, Any]:
    """The named restrictions as columns; a restriction that is not set is None.

    Raises `InvalidInput`, which names the column and, in a list, the index.
    """
    restrictions: Any = message  # the type stub accepts literal names only
    columns: dict[str, Any] = {}
    for name in names:
        column = COLUMNS[name]
        is_set = name == "only_expected" or restrictions.HasField(name)
        columns[column] = _READ[name](column, getattr(restrictions, name)) if is_set else None
    return columns


def _device_types(column: str, given: pb.Allowed) -> list[str]:
    def read(field: str, value: str) -> str:
        check_text(field, value, shortest=1, longest=64)
        return value

    return _each(column, given, MAX_DEVICE_TYPES, read)


def _networks(column: str, given: pb.Allowed) -> list[str]:
    return _each(column, given, MAX_NETWORKS, network)


def _uuids(column: str, given: pb.Allowed) -> list[str]:
    return _each(column, given, MAX_UUIDS, _uuid)


def _uuid(column: str, value: str) -> str:
    check_identifier(column, value)
    return value


def _flag(_: str, value: bool) -> bool:
    return value


_READ: dict[str, Callable[[str, Any], Any]] = {
    "device_types": _device_types,
    "source_networks": _networks,
    "uuids": _uuids,
    "uuid_prefix": _uuid,
    "only_expected": _flag,
}


def _each(column: str, given: pb.Allowed, most: int, read: Callable[[str, str], str]) -> list[str]:
    """The values as `read` returns them, without duplicates. Raises `InvalidInput`."""
    if not 1 <= len(given.values) <= most:
        raise InvalidInput(f"must name 1 to {most}, or be null", field=column)
    found = (read(f"{column}[{index}]", value) for index, value in enumerate(given.values))
    return list(dict.fromkeys(found))


def network(field: str, value: str) -> str:
    """A network in CIDR notation (RFC 4632, RFC 4291), or one address, as PostgreSQL writes it.

    Raises `InvalidInput`.
    """
    check_text(field, value, shortest=2, longest=64)
    address, _, length = value.partition("/")
    # Python accepts zones and masks too; PostgreSQL accepts neither.
    is_whole = value == address or (length.isdecimal() and length.isascii())
    if "%" in address or not is_whole:
        raise InvalidInput("is not a network such as 192.0.2.0/24", field=field)
    try:
        found = ip_network(value, strict=False)
    except ValueError:
        raise InvalidInput("is not a network such as 192.0.2.0/24", field=field) from None
    if ip_address(address) != found.network_address:
        raise InvalidInput(f"has bits beyond its prefix: {found} has none", field=field)
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        raise InvalidInput("is of IPv4 addresses: write them as such", field=field)
    return str(found)
