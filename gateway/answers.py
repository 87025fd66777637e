"""The answers to devices, as JSON. docs/note.md promises each field.

Agents already parse these documents, so fields may be added, but not changed. A missing field is
left out, never null. The answers have only fields that a device needs.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple, cast

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2
from msgspec import UNSET, Struct, UnsetType, structs

from chassis.errors import Internal, MooringError, from_item
from gateway.examples import MOMENT, UUID

# The longest `refreshAfter` in an answer to a device that its broker does not hold yet.
NOT_READY_REFRESH_AFTER_S = 5

SOURCES: dict[int, str] = {
    number: name.removeprefix("SOURCE_").lower() for name, number in resolution_pb2.Source.items()
}

# What is unusual about an answer; None for a usual one.
SITUATIONS: dict[int, str | None] = {
    number: name.removeprefix("SITUATION_").lower() if number else None
    for name, number in resolution_pb2.Situation.items()
}

WEBSOCKETS = ("ws", "wss")


class BrokerConfig(Struct, rename="camel", frozen=True):
    """The settings to connect with. Times are in the units of MQTT.js: s for keepAlive, else ms."""

    protocol: str
    host: str
    port: int
    use_tls: bool
    verify_certificate: bool
    client_id_prefix: str
    keep_alive: int
    clean_session: bool
    reconnect_period: int
    connect_timeout: int
    ca_cert: str | UnsetType = UNSET
    client_cert: str | UnsetType = UNSET
    # Always sent for a websocket, because clients have different defaults.
    path: str | UnsetType = UNSET


class Fallback(Struct, rename="camel", frozen=True):
    """A broker to turn to, with the same username and password, if the first cannot be reached."""

    broker: str
    broker_config: BrokerConfig | UnsetType


class Topics(Struct, frozen=True):
    """MQTT topic filters (MQTT 5.0, section 4.7)."""

    publish: list[str]
    subscribe: list[str]


class Mqtt(Struct, rename="camel", kw_only=True, frozen=True):
    """How a device connects today."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "username": f"device_{UUID}",
        "password": "kVq3x0mJ0b8y1m2Q4r6T8u0W2y4A6c8E0g2I4k6M8o0",
        "broker": "mqtt://localhost:5883",
        "brokerConfig": {
            "protocol": "mqtt",
            "host": "localhost",
            "port": 5883,
            "useTls": False,
            "verifyCertificate": True,
            "clientIdPrefix": "mooring",
            "keepAlive": 60,
            "cleanSession": True,
            "reconnectPeriod": 1000,
            "connectTimeout": 30000,
        },
        "topics": {"publish": [f"iot/device/{UUID}/#"], "subscribe": [f"iot/device/{UUID}/#"]},
        "source": "default",
        "generation": "5a1f0c3b9d2e4f68",
        "refreshAfter": 3600,
    }

    username: str
    password: str
    broker: str
    broker_config: BrokerConfig | UnsetType = UNSET
    topics: Topics
    source: str
    generation: str
    refresh_after: int
    fallback_brokers: list[Fallback] | UnsetType = UNSET
    situation: str | UnsetType = UNSET
    stale: bool | UnsetType = UNSET
    ready: bool | UnsetType = UNSET


class RegisteredDevice(Struct, rename="camel", frozen=True):
    """A device's identity, and how it connects."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "uuid": UUID,
        "deviceName": "Test Device",
        "deviceType": "raspberry-pi-4",
        "fleetId": "demo",
        "createdAt": MOMENT,
        "mqtt": Mqtt.EXAMPLE,
    }

    id: int
    uuid: str
    device_name: str
    device_type: str
    fleet_id: str
    created_at: datetime
    mqtt: Mqtt


class Awaited(NamedTuple):
    """The client that the broker must hold before it accepts the device.

    `is_newly_told`: the client was changed just now, so the answer waits for the broker.
    """

    broker_id: int
    username: str
    fingerprint: str
    is_newly_told: bool


class Registered(NamedTuple):
    """The answer to a registration. `created` is false if the device had registered before."""

    device: RegisteredDevice
    created: bool
    # None if the broker asks Mooring about clients.
    awaited: Awaited | None = None

    def while_not_ready(self) -> "Registered":
        """The answer while the broker does not hold the device yet."""
        device = structs.replace(self.device, mqtt=_while_not_ready(self.device.mqtt))
        return self._replace(device=device)


class Connected(NamedTuple):
    """How one device connects."""

    mqtt: Mqtt
    # The answer that is valid when the broker accepts the device.
    refresh_after: int
    # None if the broker asks Mooring about clients.
    awaited: Awaited | None = None

    def while_not_ready(self) -> "Connected":
        """The answer while the broker does not hold the device yet."""
        return self._replace(mqtt=_while_not_ready(self.mqtt))


class _Brokers:
    """The brokers of one batch. Each is serialised once for all devices that get it."""

    def __init__(
        self, brokers: "list[resolution_pb2.BrokerSettings]", environment_url: str
    ) -> None:
        self._urls = {broker.id: broker.url for broker in brokers}
        # Each BrokerConfig is encoded once, and the encoder copies the `Raw`.
        self._configs = {
            broker.id: cast(
                "BrokerConfig", msgspec.Raw(msgspec.json.encode(_broker_config(broker)))
            )
            for broker in brokers
        }
        self._environment_url = environment_url

    def url_and_config(self, broker_id: int) -> tuple[str, BrokerConfig | UnsetType]:
        """The broker's URL and settings. Raises `Internal` if the batch lacks the broker."""
        if not broker_id:
            return self._environment_url, UNSET
        if broker_id not in self._urls:
            raise Internal("internal error")
        return self._urls[broker_id], self._configs[broker_id]


class _Times:
    """The times of one batch, cached: devices of one transaction have the same time."""

    def __init__(self) -> None:
        self._moments: dict[tuple[int, int], datetime] = {}

    def of(self, timestamp: Timestamp) -> datetime:
        key = (timestamp.seconds, timestamp.nanos)
        moment = self._moments.get(key)
        if moment is None:
            moment = self._moments[key] = timestamp.ToDatetime(tzinfo=UTC)
        return moment


def registered(
    response: registration_pb2.RegisterDevicesResponse,
) -> list[Registered | MooringError]:
    """An answer or an error for each registration, in order."""
    brokers = _Brokers(list(response.brokers), response.environment_url)
    times = _Times()
    return [_registered(outcome, brokers, times) for outcome in response.outcomes]


def connections(
    response: registration_pb2.GetConnectionsResponse | registration_pb2.RotateCredentialsResponse,
) -> list[Connected | MooringError]:
    """An answer or an error for each request, in order."""
    brokers = _Brokers(list(response.brokers), response.environment_url)
    return [_connected(outcome, brokers) for outcome in response.outcomes]


def _registered(
    outcome: registration_pb2.RegistrationOutcome, brokers: _Brokers, times: _Times
) -> Registered | MooringError:
    if not outcome.HasField("device"):
        error = from_item(outcome.error)
        error.field = _camel(error.field)
        return error
    device = outcome.device
    try:
        mqtt = _mqtt(device.connection, brokers)
    except Internal as error:
        return error
    answer = RegisteredDevice(
        id=device.id,
        uuid=device.uuid,
        device_name=device.device_name,
        device_type=device.device_type,
        fleet_id=device.fleet_id,
        created_at=times.of(device.created_at),
        mqtt=mqtt,
    )
    return Registered(answer, device.created, _awaited(device.connection))


def _camel(field: str) -> str:
    """The name of a field in the device's request, for its name in the proto."""
    first, *others = field.split("_")
    return first + "".join(other.capitalize() for other in others)


def _connected(
    outcome: registration_pb2.ConnectionOutcome, brokers: _Brokers
) -> Connected | MooringError:
    if not outcome.HasField("connection"):
        return from_item(outcome.error)
    try:
        mqtt = _mqtt(outcome.connection, brokers)
    except Internal as error:
        return error
    return Connected(mqtt, mqtt.refresh_after, _awaited(outcome.connection))


def _awaited(connection: registration_pb2.Connection) -> Awaited | None:
    if not connection.held_as:
        return None
    return Awaited(
        connection.broker_id, connection.username, connection.held_as, connection.newly_told
    )


def _while_not_ready(mqtt: Mqtt) -> Mqtt:
    refresh_after = min(mqtt.refresh_after, NOT_READY_REFRESH_AFTER_S)
    return structs.replace(mqtt, ready=False, refresh_after=refresh_after)


def _mqtt(connection: registration_pb2.Connection, brokers: _Brokers) -> Mqtt:
    url, config = brokers.url_and_config(connection.broker_id)
    return Mqtt(
        username=connection.username,
        password=connection.password,
        broker=url,
        broker_config=config,
        topics=Topics(list(connection.publish_topics), list(connection.subscribe_topics)),
        source=SOURCES.get(connection.source, "unspecified"),
        generation=connection.generation,
        refresh_after=connection.refresh_after_s,
        fallback_brokers=[
            Fallback(*brokers.url_and_config(one)) for one in connection.fallback_broker_ids
        ]
        or UNSET,
        situation=SITUATIONS.get(connection.situation) or UNSET,
        stale=connection.stale or UNSET,
    )


def _broker_config(broker: resolution_pb2.BrokerSettings) -> BrokerConfig:
    return BrokerConfig(
        protocol=broker.protocol,
        host=broker.host,
        port=broker.port,
        use_tls=broker.use_tls,
        verify_certificate=broker.verify_certificate,
        client_id_prefix=broker.client_id_prefix,
        keep_alive=broker.keep_alive_s,
        clean_session=broker.clean_session,
        reconnect_period=broker.reconnect_period_ms,
        connect_timeout=broker.connect_timeout_ms,
        ca_cert=broker.ca_cert if broker.HasField("ca_cert") else UNSET,
        client_cert=broker.client_cert if broker.HasField("client_cert") else UNSET,
        path=broker.path or "/" if broker.protocol in WEBSOCKETS else UNSET,
    )
