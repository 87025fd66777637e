"""Requests leave nothing that only a garbage collection frees: collecting stops a process for tens
of milliseconds, and every request under way waits.
"""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.brokers import asking
from tests.stack import Stack

REQUESTS = 100
# A connection is a cycle of some objects, however many requests it had.
REST = REQUESTS // 2


# Of the garbage, grpcio makes some for each call; that is not counted.
OURS = ("chassis.", "gateway.", "registry_service.", "broker_service.")


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Garbage is kept, to be looked at, and is not collected before."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def garbage() -> Counter[str]:
    """Objects of our classes that are unreachable and still there, by class."""
    gc.collect()
    kinds = (type(one) for one in gc.garbage)
    found = Counter(kind.__qualname__ for kind in kinds if kind.__module__.startswith(OURS))
    gc.garbage.clear()
    return found


async def ask(url: str, requests: list[bytes]) -> list[int]:
    """The statuses of the answers to `requests`, which are sent on one connection."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    statuses = []
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
        statuses.append(int(head.split()[1]))
    writer.close()
    await writer.wait_closed()
    return statuses


def request(method: str, path: str, secret: str, body: Any = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def device(uuid: str) -> dict[str, str]:
    return {
        "uuid": uuid,
        "deviceName": "a device",
        "deviceType": "sensor",
        "deviceApiKey": f"the-API-key-of-{uuid}-which-is-long",
    }


@pytest.mark.usefixtures("uncollected")
async def test_requests_of_devices_leave_no_garbage(stack: Stack) -> None:
    register = "/api/v1/device/register"
    one = device("one")
    key = one["deviceApiKey"]
    kinds = {
        "the first": ({201}, [request("POST", register, stack.provisioning_key, one)]),
        "a new device": (
            {201},
            [
                request("POST", register, stack.provisioning_key, device(f"new-{number}"))
                for number in range(REQUESTS)
            ],
        ),
        "a device that returns": (
            {200},
            [request("POST", register, stack.provisioning_key, one)] * REQUESTS,
        ),
        "its connection": ({200}, [request("GET", "/api/v1/device/one/mqtt", key)] * REQUESTS),
        "another API key": (
            # Too many attempts for one device are refused without a comparison.
            {409, 429},
            [request("POST", register, stack.provisioning_key, {**one, "deviceApiKey": "x" * 32})]
            * REQUESTS,
        ),
        "a wrong key": ({401}, [request("POST", register, "mpk_wrong", one)] * REQUESTS),
        "no key": ({401}, [request("POST", register, "", one)] * REQUESTS),
        "a wrong body": ({422}, [request("POST", register, stack.provisioning_key, {})] * REQUESTS),
        "a wrong method": ({405}, [request("PUT", register, stack.provisioning_key)] * REQUESTS),
    }
    await leave_no_garbage(stack.gateway_url, kinds)


@pytest.mark.usefixtures("uncollected")
async def test_questions_of_brokers_leave_no_garbage(stack: Stack) -> None:
    mqtt = (await stack.register("one")).json()["mqtt"]

    def connect(password: str) -> bytes:
        body = {"username": mqtt["username"], "password": password, "clientid": "mooring-one"}
        return request("POST", "/emqx/authenticate", brokers.secret, body)

    async with asking(stack) as brokers:
        kinds = {
            "the same client": ({200}, [connect(mqtt["password"])] * REQUESTS),
            "wrong passwords": ({200}, [connect(f"wrong {n}") for n in range(REQUESTS)]),
            "unknown clients": (
                {200},
                [
                    request(
                        "POST",
                        "/emqx/authenticate",
                        brokers.secret,
                        {"username": f"device_{number}", "password": "x", "clientid": "y"},
                    )
                    for number in range(REQUESTS)
                ],
            ),
            "no path": ({404}, [request("POST", "/nowhere", brokers.secret)] * REQUESTS),
        }
        await leave_no_garbage(brokers.url, kinds)


async def leave_no_garbage(url: str, kinds: dict[str, tuple[set[int], list[bytes]]]) -> None:
    for kind, (statuses, requests) in kinds.items():
        garbage()
        assert set(await ask(url, requests)) <= statuses, kind
        left = garbage()
        assert all(count < REST for count in left.values()), (kind, left)
