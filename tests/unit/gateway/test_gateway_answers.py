"""Answers to devices, field by field, against the documented example."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from mooring.broker.v1 import resolution_pb2
from mooring.errors.v1 import errors_pb2
from mooring.registry.v1 import registration_pb2

from broker_service.settings import TLS_OF_PROTOCOL, url_of
from chassis.errors import Internal, InvalidInput, MooringError
from gateway import answers

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
BROKER = resolution_pb2.BrokerSettings(
    id=7,
    url="mqtts://mqtt.example.com:8883",
    protocol="mqtts",
    host="mqtt.example.com",
    port=8883,
    use_tls=True,
    verify_certificate=True,
    client_id_prefix="zemfyre",
    keep_alive_s=60,
    clean_session=True,
    reconnect_period_ms=1000,
    connect_timeout_ms=30000,
    ca_cert=CA,
    generation="broker-generation",
)
# The documented example of an answer.
NOTE: dict[str, Any] = {
    "username": "device_abc123",
    "password": "secure_password",
    "broker": "mqtts://mqtt.example.com:8883",
    "brokerConfig": {
        "protocol": "mqtts",
        "host": "mqtt.example.com",
        "port": 8883,
        "useTls": True,
        "verifyCertificate": True,
        "clientIdPrefix": "zemfyre",
        "keepAlive": 60,
        "cleanSession": True,
        "reconnectPeriod": 1000,
        "connectTimeout": 30000,
        "caCert": CA,
    },
    "topics": {"publish": ["iot/device/abc123/#"], "subscribe": ["iot/device/abc123/#"]},
}
BEYOND_THE_NOTE = {"source": "fleet", "generation": "g1", "refreshAfter": 3600}


def connection(**changes: Any) -> registration_pb2.Connection:
    return registration_pb2.Connection(
        **{
            "username": "device_abc123",
            "password": "secure_password",
            "source": resolution_pb2.SOURCE_FLEET,
            "broker_id": 7,
            "generation": "g1",
            "refresh_after_s": 3600,
            "publish_topics": ["iot/device/abc123/#"],
            "subscribe_topics": ["iot/device/abc123/#"],
            **changes,
        }
    )


def documents(
    *connections: registration_pb2.Connection,
    brokers: tuple[resolution_pb2.BrokerSettings, ...] = (BROKER,),
) -> list[Any]:
    """The JSON of each outcome, or its error."""
    response = registration_pb2.GetConnectionsResponse(
        outcomes=[registration_pb2.ConnectionOutcome(connection=each) for each in connections],
        brokers=brokers,
        environment_url="mqtt://mosquitto:1883",
    )
    return [
        answer if isinstance(answer, MooringError) else msgspec.json.decode(encoded(answer.mqtt))
        for answer in answers.connections(response)
    ]


def encoded(answer: answers.Mqtt | answers.RegisteredDevice) -> bytes:
    return msgspec.json.encode(answer)


def test_a_connection_is_the_documented_example_without_internal_fields() -> None:
    assert documents(connection()) == [NOTE | BEYOND_THE_NOTE]


@given(
    protocol=st.sampled_from(sorted(TLS_OF_PROTOCOL)),
    host=st.sampled_from(["mqtt.example.com", "iot_mosquitto", "10.0.0.1", "::1", "2001:db8::7"]),
    port=st.integers(1, 65_535),
    path=st.sampled_from(["", "/", "/mqtt", "/a/b", "/mqtt?tenant=7", "/%C3%BC"]),
)
def test_the_settings_give_the_same_endpoint_as_the_url(
    protocol: str, host: str, port: int, path: str
) -> None:
    is_websocket = protocol in ("ws", "wss")
    path = path if is_websocket else ""
    broker = resolution_pb2.BrokerSettings(
        id=7,
        url=url_of(protocol, host, port, path),
        protocol=protocol,
        host=host,
        port=port,
        path=path,
        use_tls=TLS_OF_PROTOCOL[protocol],
    )
    [mqtt] = documents(connection(), brokers=(broker,))
    url, config = urlsplit(mqtt["broker"]), mqtt["brokerConfig"]
    assert (config["protocol"], config["host"], config["port"]) == (
        url.scheme,
        url.hostname,
        url.port,
    )
    assert config["useTls"] == (url.scheme in ("mqtts", "wss"))
    target = f"{url.path or '/'}?{url.query}".rstrip("?")
    assert config.get("path") == (target if is_websocket else None)


def test_a_registration_is_the_documented_example_with_the_devices_identity() -> None:
    created_at = Timestamp()
    created_at.FromDatetime(datetime(2026, 11, 23, 18, 0, tzinfo=UTC))
    device = registration_pb2.RegisteredDevice(
        id=1,
        uuid="abc123",
        device_name="Device",
        device_type="raspberry-pi-4",
        fleet_id="demo",
        created_at=created_at,
        created=True,
        connection=connection(),
    )
    [answer] = answers.registered(
        registration_pb2.RegisterDevicesResponse(
            outcomes=[registration_pb2.RegistrationOutcome(device=device)], brokers=[BROKER]
        )
    )
    assert isinstance(answer, answers.Registered)
    assert answer.created
    assert msgspec.json.decode(encoded(answer.device)) == {
        "id": 1,
        "uuid": "abc123",
        "deviceName": "Device",
        "deviceType": "raspberry-pi-4",
        "fleetId": "demo",
        "createdAt": "2026-11-23T18:00:00Z",
        "mqtt": NOTE | BEYOND_THE_NOTE,
    }


def test_certificates_are_absent_if_there_are_none() -> None:
    bare = resolution_pb2.BrokerSettings()
    bare.CopyFrom(BROKER)
    bare.ClearField("ca_cert")
    [answer] = documents(connection(), brokers=(bare,))
    assert answer["brokerConfig"] == {
        key: value for key, value in NOTE["brokerConfig"].items() if key != "caCert"
    }


def test_a_client_certificate_is_present_if_there_is_one() -> None:
    both = resolution_pb2.BrokerSettings()
    both.CopyFrom(BROKER)
    both.client_cert = "client"
    [answer] = documents(connection(), brokers=(both,))
    assert answer["brokerConfig"] == NOTE["brokerConfig"] | {"clientCert": "client"}


def test_without_a_broker_the_answer_is_the_environments_url_alone() -> None:
    [answer] = documents(
        connection(broker_id=0, source=resolution_pb2.SOURCE_ENVIRONMENT, stale=True), brokers=()
    )
    assert answer["broker"] == "mqtt://mosquitto:1883"
    assert "brokerConfig" not in answer
    assert answer["source"] == "environment"
    assert answer["stale"] is True


def test_every_source_has_its_own_word() -> None:
    words = [
        answer["source"]
        for answer in documents(
            # The registry sends devices the source `fleet` for a rollout, and `default` for the
            # default pool.
            *(
                connection(source=source)
                for source in resolution_pb2.Source.values()
                if source not in (resolution_pb2.SOURCE_ROLLOUT, resolution_pb2.SOURCE_DEFAULT_POOL)
            )
        )
    ]
    assert words == ["unspecified", "device", "fleet", "region", "default", "environment"]


def test_each_device_gets_its_own_broker() -> None:
    other = resolution_pb2.BrokerSettings(id=8, url="mqtt://other:1883", host="other")
    first, second = documents(connection(), connection(broker_id=8), brokers=(BROKER, other))
    assert (first["broker"], first["brokerConfig"]["host"]) == (
        "mqtts://mqtt.example.com:8883",
        "mqtt.example.com",
    )
    assert (second["broker"], second["brokerConfig"]["host"]) == ("mqtt://other:1883", "other")


def test_an_error_of_one_item_does_not_affect_others() -> None:
    response = registration_pb2.RegisterDevicesResponse(
        outcomes=[
            registration_pb2.RegistrationOutcome(
                error=errors_pb2.ItemError(code=3, reason="BAD", message="must be", field="uuid")
            ),
            registration_pb2.RegistrationOutcome(
                device=registration_pb2.RegisteredDevice(id=2, connection=connection())
            ),
        ],
        brokers=[BROKER],
    )
    refused, answered = answers.registered(response)
    assert isinstance(refused, InvalidInput)
    assert (refused.reason, refused.field) == ("BAD", "uuid")
    assert isinstance(answered, answers.Registered)


def test_an_outcome_with_a_missing_broker_fails_alone() -> None:
    missing, fine = documents(connection(broker_id=99), connection())
    assert isinstance(missing, Internal)
    assert fine == NOTE | BEYOND_THE_NOTE


def test_an_empty_outcome_is_an_error() -> None:
    [answer] = answers.connections(
        registration_pb2.GetConnectionsResponse(outcomes=[registration_pb2.ConnectionOutcome()])
    )
    assert isinstance(answer, Internal)
