"""Ends sessions at the API of a fake EMQX, which answers as EMQX's documentation says.

https://docs.emqx.com/en/emqx/latest/admin/api.html: `GET /clients?username=` lists a page,
`DELETE /clients/{clientid}` ends a session with 204, or answers 404; `POST /clients/kickout/bulk`
ends the sessions of a list. RabbitMQ's API is tested on a real one (test_rabbitmq_access.py,
test_rabbitmq_node.py).
"""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from chassis.address_policy import UNRESTRICTED
from registry_service.admission.reconciler.http_management import Emqx, HttpSettings, RabbitMq
from registry_service.errors import ControlNotAllowed, ControlUnreachable, ControlUnreadable

LOGIN = ("key", "secret")
PREFIX = "/api/v5/clients"


class Api(ThreadingHTTPServer):
    """Knows the ids of clients, and the username of each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.clients: dict[str, str] = {}
        # The status and body of every answer, if set.
        self.fault: tuple[int, bytes] | None = None
        self.keeps_all = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        found = [
            {"clientid": client_id, "username": username, "connected": True}
            for client_id, username in self.server.clients.items()
            if [username] == query.get("username")
        ]
        page = found[: int(query.get("limit", ["0"])[0])]
        self.answer(200, json.dumps({"data": page, "meta": {"page": 1}}).encode())

    def do_DELETE(self) -> None:
        names = segments(self.path)
        client_id = names[-1]
        is_there = f"/{'/'.join(names[:-1])}" == PREFIX and client_id in self.server.clients
        if is_there:
            self.end(client_id)
        self.answer(204 if is_there else 404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == f"{PREFIX}/kickout/bulk"
        assert self.headers["Content-Type"] == "application/json"
        for client_id in json.loads(body):
            self.end(client_id)
        self.answer(204, b"")

    def end(self, client_id: str) -> None:
        if not self.server.keeps_all:
            self.server.clients.pop(client_id, "")

    def answer(self, status: int, body: bytes) -> None:
        token = b64encode(":".join(LOGIN).encode()).decode()
        if self.headers["authorization"] != f"Basic {token}":
            status, body = 401, b'{"code": "BAD_API_KEY_OR_SECRET"}'
        elif self.server.fault is not None:
            status, body = self.server.fault
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Does not log requests."""


def segments(path: str) -> list[str]:
    """The segments as Cowboy, EMQX's server, reads them: it decodes them, and then removes dots."""
    kept: list[str] = []
    for segment in map(unquote, path.split("/")[1:]):
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return kept


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


async def kicked(
    url: str,
    *usernames: str,
    login: tuple[str, str] = LOGIN,
    kind: type[Emqx] | type[RabbitMq] = Emqx,
) -> dict[str, int]:
    kicker = kind(HttpSettings(url, *login, policy=UNRESTRICTED))
    try:
        return await kicker.kick(usernames)
    finally:
        await kicker.close()


async def test_all_sessions_of_the_named_users_end_and_no_others(api: Api) -> None:
    odd = (".", "..", "...", "/", "../..", "%2e%2e", "%2f", "a?b#c", "a b+c", "kickout/bulk", "ü")
    many = {f"mqttjs {n}/+": "device_one" for n in range(250 - len(odd))}
    many |= dict.fromkeys(odd, "device_one")
    others = {"c-2": "device_two", "c-3": "device_one2"}
    api.clients = {**many, **others, "c-4": "device three&limit=1"}
    found = await kicked(f"{api.url}/", "device_one", "device_nobody", "device three&limit=1")
    assert found == {"device_one": 250, "device_nobody": 0, "device three&limit=1": 1}
    assert api.clients == others


async def test_errors_of_the_api_are_raised(api: Api) -> None:
    with pytest.raises(ControlNotAllowed):
        await kicked(api.url, "device_one", login=("key", "wrong"))
    for fault in ((200, b"<html>"), (200, b"[]"), (500, b""), (302, b"")):
        api.fault = fault
        with pytest.raises(ControlUnreadable):
            await kicked(api.url, "device_one")
    api.fault = None
    # This API keeps listing clients whose sessions were ended.
    api.keeps_all, api.clients = True, {f"c-{n}": "device_one" for n in range(100)}
    with pytest.raises(ControlUnreadable, match="still lists clients"):
        await kicked(api.url, "device_one")
    with pytest.raises(ControlUnreachable):
        await kicked("http://127.0.0.1:1", "device_one")


@pytest.mark.parametrize("kind", [Emqx, RabbitMq])
@pytest.mark.parametrize("status", [404, 410])
async def test_a_server_without_the_api_has_ended_nothing(
    api: Api, kind: type[Emqx] | type[RabbitMq], status: int
) -> None:
    """The URL of the API may be wrong, so 404 does not prove that a session has ended."""
    api.fault = (status, b'{"error": "Object Not Found", "reason": "Not Found"}')
    for username in ("device_one", ".", ".."):
        with pytest.raises(ControlUnreadable):
            await kicked(api.url, username, kind=kind)
