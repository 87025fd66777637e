"""A real RabbitMQ with a fake listener: that it asks, and what it sends."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import aiomqtt
import pytest

from chassis.address_policy import UNRESTRICTED
from registry_service.admission.reconciler.http_management import HttpSettings, RabbitMq
from tests.broker_versions import Version
from tests.rabbitmq import Rabbitmq
from tests.unit.registry_service.admission.listener import rabbitmq_requests as recorded
from tests.unit.registry_service.admission.listener.rabbitmq_requests import Recorded

# RabbitMQ takes much memory and time to start.
pytestmark = [pytest.mark.heavy, pytest.mark.every_version("the broker asks over HTTP")]

DEVICE = "device_abc"
PASSWORD = "s3cret"
TOPIC = "iot/device/abc"
Judgement = Callable[[Recorded], bool]


class Judge(ThreadingHTTPServer):
    """Answers RabbitMQ's questions, and records them."""

    # Threads that wait for RabbitMQ's next request need not end first.
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.allows: Judgement = lambda asked: True
        self.asked: list[Recorded] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret/rabbitmq"

    def take(self) -> list[Recorded]:
        """The questions since the last call."""
        asked, self.asked = self.asked, []
        return asked


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The head and the body of an answer are two packets; the second one must not be delayed.
    disable_nagle_algorithm = True
    server: Judge

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["content-length"]))
        base, _, operation = self.path.rpartition("/")
        assert base == "/secret/rabbitmq"
        asked = Recorded(operation, form)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.asked.append(asked)
        body = b"allow" if self.server.allows(asked) else b"deny"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Does not log requests."""


@pytest.fixture
def judge(rabbitmq: Rabbitmq) -> Iterator[Judge]:
    with Judge() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            rabbitmq.ask_at(server.url)
            yield server
        finally:
            server.shutdown()
            thread.join()


def client(node: Rabbitmq, username: str = DEVICE, password: str = PASSWORD) -> aiomqtt.Client:
    return aiomqtt.Client(
        "127.0.0.1",
        node.mqtt_port,
        username=username,
        password=password,
        identifier=f"mooring_{username}",
        timeout=10,
    )


def knows(asked: Recorded) -> bool:
    """Answers as a listener that knows one device and its topics."""
    form = {name: values[0] for name, values in parse_qs(asked.form.decode()).items()}
    match asked.operation:
        case "user":
            return (form["username"], form["password"]) == (DEVICE, PASSWORD)
        case "topic":
            return form["routing_key"].startswith("iot.device.abc.")
    return form["username"] == DEVICE


async def test_one_device_is_admitted_and_no_other(rabbitmq: Rabbitmq, judge: Judge) -> None:
    judge.allows = knows
    async with client(rabbitmq) as device:
        await device.subscribe(f"{TOPIC}/#", qos=1)
        await device.publish(f"{TOPIC}/state", b"on", qos=1)
        message = await anext(aiter(device.messages))
        assert (str(message.topic), message.payload) == (f"{TOPIC}/state", b"on")

    async def refused(other: aiomqtt.Client) -> None:
        with pytest.raises(aiomqtt.MqttError, match=r"[Bb]ad user ?name or password"):
            async with other:
                pytest.fail("RabbitMQ admitted a client that is not known")

    await asyncio.gather(
        refused(client(rabbitmq, password="guessed")),
        refused(client(rabbitmq, username="device_other")),
    )


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("publish", ("iot/device/other/state", b"on", 1)),
        ("subscribe", ("iot/device/#", 1)),
        # In MQTT "*" is an ordinary level; in RabbitMQ it is a wildcard like "+".
        ("subscribe", ("iot/device/*/state", 1)),
    ],
)
async def test_a_client_that_uses_other_topics_is_disconnected(
    rabbitmq: Rabbitmq, judge: Judge, verb: str, arguments: tuple[object, ...]
) -> None:
    judge.allows = knows
    with pytest.raises(aiomqtt.MqttError, match="Disconnected"):  # noqa: PT012
        async with client(rabbitmq) as device:
            # aiomqtt would wait for an acknowledgement, which does not come.
            getattr(device._client, verb)(*arguments)
            await anext(aiter(device.messages))


async def test_a_client_without_a_login_is_refused(rabbitmq: Rabbitmq, judge: Judge) -> None:
    """RabbitMQ has a user for such clients, until an administrator deletes it."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    for path, body in (
        ("/api/users/guest", {"password": "guest", "tags": ""}),
        ("/api/permissions/%2F/guest", everything),
    ):
        assert rabbitmq.manage("PUT", path, body)[0] in (201, 204)
    try:
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", rabbitmq.mqtt_port, timeout=10):
                pytest.fail("RabbitMQ let in a client without a login")
    finally:
        assert rabbitmq.manage("DELETE", "/api/users/guest")[0] == 204


async def test_no_client_is_admitted_without_an_answer(rabbitmq: Rabbitmq) -> None:
    with pytest.raises(aiomqtt.MqttError, match=r"[Bb]ad user ?name or password"):
        async with client(rabbitmq):
            pytest.fail("RabbitMQ admitted a client without asking")


async def test_it_asks_what_was_recorded(
    rabbitmq: Rabbitmq, judge: Judge, rabbitmq_version: Version
) -> None:
    way = recorded.WAY_4 if rabbitmq_version.is_at_least("4.0") else recorded.WAY_3
    for topic, requests in (
        (f"{TOPIC}/state", way.publish),
        (f"{TOPIC}/a.b/*", way.publish_odd),
    ):
        async with client(rabbitmq) as device:
            assert judge.take() == list(way.connect)
            await device.publish(topic, b"on", qos=1)
            assert judge.take() == list(requests)
    # This comes last: a queue may exist a little longer than its client, and RabbitMQ would ask
    # about it for the next client.
    async with client(rabbitmq) as device:
        assert judge.take() == list(way.connect)
        await device.subscribe(f"{TOPIC}/#", qos=1)
        assert judge.take() == list(way.subscribe)
        for filters, requests in (
            ((f"{TOPIC}/+/state", f"{TOPIC}/a.b/*"), way.subscribe_more),
            ((f"$share/group/{TOPIC}",), way.subscribe_shared),
            (("#",), way.subscribe_everything),
        ):
            await device.subscribe([(one, 1) for one in filters])
            # On a busy machine, RabbitMQ asks about the queue again after a second.
            topics = [asked for asked in judge.take() if asked.operation == "topic"]
            assert topics == list(requests)
    for headers in judge.headers:
        del headers["host"], headers["content-length"]
        assert headers.pop("te", "") == ""
        assert headers == recorded.HEADERS


async def test_a_user_s_connections_are_ended_at_once(rabbitmq: Rabbitmq, judge: Judge) -> None:
    async with client(rabbitmq, username="device_other") as other:
        with pytest.raises(aiomqtt.MqttError, match="Disconnected"):  # noqa: PT012
            async with client(rabbitmq) as device, asyncio.timeout(2):
                path = f"/api/connections/username/{DEVICE}"
                status, connections = rabbitmq.manage("GET", path)
                assert (status, [one["user"] for one in connections]) == (200, [DEVICE])
                assert rabbitmq.manage("DELETE", path) == (204, None)
                await anext(aiter(device.messages))
        async with asyncio.timeout(2):
            while rabbitmq.manage("GET", path) != (200, []):
                await asyncio.sleep(0.01)
        await other.publish("iot/device/other/state", b"on", qos=1)


@pytest.mark.parametrize("username", [".", "..", "%2e", "a/../b", "a b?c#d", "\u00fc+&"])
async def test_the_session_of_a_user_with_any_name_ends(
    rabbitmq: Rabbitmq, judge: Judge, username: str
) -> None:
    url = f"http://127.0.0.1:{rabbitmq.management_port}"
    login = rabbitmq.username, rabbitmq.password
    api = RabbitMq(HttpSettings(url, *login, policy=UNRESTRICTED))
    async with (
        contextlib.AsyncExitStack() as stack,
        client(rabbitmq, username="device_other") as other,
    ):
        stack.push_async_callback(api.close)
        with pytest.raises(aiomqtt.MqttError, match="Disconnected"):  # noqa: PT012
            async with client(rabbitmq, username=username) as device, asyncio.timeout(20):
                # The list of all connections is some seconds old.
                while await api.kick([username, "nobody"]) != {username: 1, "nobody": 0}:
                    await asyncio.sleep(0.1)
                await anext(aiter(device.messages))
        await other.publish("iot/device/other/state", b"on", qos=1)


async def test_it_listens_to_this_machine_only(rabbitmq: Rabbitmq) -> None:
    for port in (
        rabbitmq.mqtt_port,
        rabbitmq.management_port,
        rabbitmq.epmd_port,
        rabbitmq.distribution_port,
    ):
        # A server that listens on all addresses would answer at 127.0.0.2 too.
        for address, is_found in (("127.0.0.1", True), ("127.0.0.2", False)):
            with contextlib.closing(socket.socket()) as attempt:
                assert (attempt.connect_ex((address, port)) == 0) is is_found, (address, port)
