"""A device of an import, checked before anything else."""

from mooring.registry.v1 import devices_pb2 as pb

from chassis.errors import InvalidInput
from chassis.validation import IDENTIFIER, check_identifier, check_text
from registry_service.attributes import TEXTS, Attributes, check_attribute, place_of
from registry_service.credentials import username_of
from registry_service.errors import UsernameReserved
from registry_service.password_hashes import (
    NONE,
    PasswordHash,
    cheapest,
    read_password_hash,
)
from registry_service.passwords import Password, is_password

UNKNOWN_TYPE = "unknown"
PREFIX = username_of("")
# The attributes that an imported device can have.
IMPORTED = tuple(name for name in TEXTS if name in pb.ImportedDevice.DESCRIPTOR.fields_by_name)


class ImportedDevice(Attributes, frozen=True, kw_only=True):
    """A well-formed device. Fields have the names of columns, except `broker`, which is a broker's
    name.
    """

    uuid: str
    fleet_id: str
    mqtt_username: str
    mqtt_password_hash: str
    credential_salt: str
    password_algorithm: str
    broker: str | None
    mqtt_broker_id: int | None


def read_imported(message: pb.ImportedDevice) -> ImportedDevice:
    """Raises `InvalidInput` or `UsernameReserved`, which name the column."""
    check_identifier("uuid", message.uuid)
    check_identifier("fleet_id", message.fleet_id)
    attributes = {name: getattr(message, name) for name in IMPORTED}
    if not message.HasField("device_name"):
        attributes["device_name"] = message.uuid
    if not message.HasField("device_type"):
        attributes["device_type"] = UNKNOWN_TYPE
    for name, value in attributes.items():
        check_attribute(name, value)
    latitude, longitude = place_of(message, "")
    if message.HasField("broker"):
        check_text("broker", message.broker, shortest=1, longest=255)
        if message.HasField("mqtt_broker_id"):
            raise InvalidInput("is named by its name or by its id, not both", field="broker")
    password = _password(message)
    return ImportedDevice(
        **attributes,
        latitude=latitude,
        longitude=longitude,
        uuid=message.uuid,
        fleet_id=message.fleet_id,
        mqtt_username=_username(message),
        mqtt_password_hash=password.hash,
        credential_salt=password.salt,
        password_algorithm=password.algorithm,
        broker=message.broker if message.HasField("broker") else None,
        mqtt_broker_id=message.mqtt_broker_id if message.HasField("mqtt_broker_id") else None,
    )


def _username(message: pb.ImportedDevice) -> str:
    """The username from the import, or the one that registering will give to the device. Raises
    `UsernameReserved` for a username that registering would give to another device.
    """
    ours = username_of(message.uuid)
    if not message.HasField("mqtt_username"):
        return ours
    username = message.mqtt_username
    check_text("mqtt_username", username, shortest=1, longest=255)
    another = username.removeprefix(PREFIX)
    if username not in (ours, another) and IDENTIFIER.fullmatch(another):
        raise UsernameReserved("belongs to the device it names", field="mqtt_username")
    return username


def _password(message: pb.ImportedDevice) -> PasswordHash:
    if message.HasField("mqtt_username") != message.HasField("password_hash"):
        missing = "password_hash" if message.HasField("mqtt_username") else "mqtt_username"
        raise InvalidInput("a username and a password hash go together", field=missing)
    if not message.HasField("password_hash"):
        for field in ("password_salt", "password_algorithm"):
            if getattr(message, field):
                raise InvalidInput("requires a password hash", field=field)
        return PasswordHash(NONE)
    found = read_password_hash(
        message.password_hash,
        message.password_salt if message.HasField("password_salt") else None,
        message.password_algorithm if message.HasField("password_algorithm") else None,
    )
    _check_verified(found)
    return found


def _check_verified(found: PasswordHash) -> None:
    """Verifies a password once, as for later connections, but at the lowest cost of its algorithm.

    Raises `InvalidInput` for a hash that has the right form, but that the library cannot verify.
    """
    try:
        is_password(Password(found.algorithm, cheapest(found), found.salt), "")
    except Exception:  # noqa: BLE001 - the library may raise any
        raise InvalidInput("cannot be verified", field="password_hash") from None
