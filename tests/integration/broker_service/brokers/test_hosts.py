"""One rule for hosts: the API, SQL and the environment accept the same ones."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from broker_service.settings import Settings, check
from chassis.errors import InvalidInput
from chassis.hosts import MqttUrl
from tests.stack import Database, Stack

TAKEN = (
    *(
        "iot_mosquitto",
        "_mqtt",
        "broker_",
        "MQTT.Example.com",
        "xn--mnchen-3ya.example",
        "a.b-c.d1",
    ),
    *("10.0.0.1", "::1", "2001:db8::1", "::ffff:10.0.0.1", "0x7g", "1.example"),
)
REFUSED = (
    *("mqtt.example.com.", ".", "", "a..b", "-a", "a-", "münchen.example", "fe80::1%eth0", "[::1]"),
    *("127.1", "2130706433", "0x7f000001", "0x7f.1", "010.0.0.1", "1.2.3.4.5", "256.1.1.1"),
    *("1:2", "1::2::3", "::1.2.3", "::01.2.3.4", "1.2.3.4:1883", "h:1883", "a b", "a\n", "h/x"),
)
LIKE_HOSTS = st.one_of(
    st.text(st.sampled_from("aZ09xX_-.:"), max_size=12),
    st.text(st.sampled_from("0123456789abcdefx."), max_size=16),
    st.text(st.sampled_from("0123456789af:"), max_size=24),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.text(max_size=20).filter(lambda text: "\0" not in text),
    st.tuples(st.sampled_from([":", "::", "1::", "::ffff:"]), st.ip_addresses(v=4)).map(
        lambda parts: f"{parts[0]}{parts[1]}"
    ),
    st.integers(60, 66).map("a".__mul__),
    st.integers(245, 258).map(lambda length: ".".join(["a" * 49] * 6)[:length]),
)


def api_takes(host: str) -> bool:
    try:
        check(Settings(name="n", host=host, port=1))
    except InvalidInput:
        return False
    return True


def environment_takes(host: str) -> bool:
    url = f"mqtt://[{host}]:1883" if ":" in host else f"mqtt://{host}:1883"
    try:
        TypeAdapter(MqttUrl).validate_python(url)
    except ValidationError:
        return False
    return True


def management_takes(host: str) -> bool:
    url = f"https://[{host}]" if ":" in host else f"https://{host}"
    try:
        check(Settings(name="n", host="h", port=1, management="emqx", management_url=url))
    except InvalidInput:
        return False
    return True


@pytest.fixture
def sql(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.url("mooring")) as connection:
        yield connection


def sql_takes(connection: psycopg.Connection, statement: str, value: str) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode(), (value,))
    except psycopg.errors.CheckViolation:
        return False
    return True


def table_takes(connection: psycopg.Connection, host: str) -> bool:
    return sql_takes(
        connection, "INSERT INTO mqtt_broker_config (name, host, port) VALUES ('n', %s, 1)", host
    )


def table_takes_management(connection: psycopg.Connection, host: str) -> bool:
    return sql_takes(
        connection,
        "INSERT INTO mqtt_broker_config (name, host, port, management, management_url, username,"
        " password_encrypted) VALUES ('n', 'h', 1, 'emqx', %s, 'u', 'x')",
        f"https://[{host}]" if ":" in host else f"https://{host}",
    )


def test_api_sql_and_environment_accept_the_same_hosts(sql: psycopg.Connection) -> None:
    @settings(max_examples=400, deadline=None)
    @given(LIKE_HOSTS)
    def alike(host: str) -> None:
        taken = api_takes(host)
        assert table_takes(sql, host) == taken
        # In a URL these would begin a port, a path or brackets.
        if not set(host) & set("[]/?#") and (":" not in host or host.count(":") > 1):
            assert environment_takes(host) == taken
            assert management_takes(host) == taken
            assert table_takes_management(sql, host) == taken

    for host in (*TAKEN, *REFUSED):
        alike = example(host)(alike)
    alike()


@pytest.mark.parametrize("host", TAKEN)
def test_a_host_is_accepted(host: str) -> None:
    assert api_takes(host)


@pytest.mark.parametrize("host", REFUSED)
def test_a_host_is_refused(host: str) -> None:
    assert not api_takes(host)


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("mqtt://iot_mosquitto:1883", True),
        ("wss://[2001:db8::1]:443/mqtt?x=1", True),
        ("mqtt://h", True),
        ("mqtt://2001:db8::1", False),
        ("mqtt://[h]", False),
        ("mqtt://h:0", False),
        ("mqtt://h:65536", False),
        ("mqtt://u:p@h", False),
        ("http://h", False),
    ],
)
def test_a_url_in_the_environment(url: str, is_taken: bool) -> None:
    try:
        TypeAdapter(MqttUrl).validate_python(url)
    except ValidationError:
        assert not is_taken
    else:
        assert is_taken


async def test_a_device_is_sent_to_a_service_of_a_container_network(stack: Stack) -> None:
    answer = await stack.admin(
        "POST", "/brokers", json={"name": "Compose", "host": "iot_mosquitto", "port": 1883}
    )
    assert answer.status_code == 201
    key = await stack.create_key(default_broker_id=answer.json()["id"])
    device = (await stack.register("device", key=key)).json()
    assert device["mqtt"]["broker"] == "mqtt://iot_mosquitto:1883"
    assert device["mqtt"]["brokerConfig"]["host"] == "iot_mosquitto"
