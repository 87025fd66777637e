"""A real RabbitMQ: while Mooring is down, without management, with a cache, and over TLS."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest
import trustme

from tests.brokers import Asking, asking
from tests.documented import block
from tests.integration.registry_service.admission.listener.test_rabbitmq_access import (
    PATIENCE_S,
    client,
    closing,
    is_let_in,
    login,
)
from tests.rabbitmq import Rabbitmq
from tests.stack import Stack

# RabbitMQ takes much memory and time to start.
pytestmark = pytest.mark.heavy
ASKING = pytest.mark.every_version("the broker asks over HTTP")

CACHE = dict(
    line.split(" = ")
    for line in block("brokers/rabbitmq.md", "ini", "# with a cache").splitlines()[1:]
)


@asynccontextmanager
async def asked(stack: Stack, rabbitmq: Rabbitmq) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        rabbitmq.ask_at(f"{running.url}/{running.secret}/rabbitmq")
        yield running


@pytest.fixture
def cached(rabbitmq: Rabbitmq) -> Iterator[Rabbitmq]:
    """The configuration with a cache, from the page about RabbitMQ."""
    assert CACHE["auth_backends.2"] == "cache"
    name, ttl = "rabbitmq_auth_backend_cache", CACHE["auth_cache.cache_ttl"]
    rabbitmq.set(
        name, "cached_backend", f"rabbit_auth_backend_{CACHE['auth_cache.cached_backend']}"
    )
    rabbitmq.set(name, "cache_ttl", ttl)
    rabbitmq.set(
        "rabbit", "auth_backends", "[rabbit_auth_backend_internal,rabbit_auth_backend_cache]"
    )
    yield rabbitmq
    rabbitmq.set(
        "rabbit", "auth_backends", "[rabbit_auth_backend_internal,rabbit_auth_backend_http]"
    )


async def echoes(device: aiomqtt.Client, topic: str) -> bool:
    await device.publish(topic, "x", qos=1)
    return (await asyncio.wait_for(anext(device.messages), PATIENCE_S)).topic.value == topic


@ASKING
async def test_without_mooring_connected_clients_stay_and_others_wait(
    stack: Stack, rabbitmq: Rabbitmq
) -> None:
    async with AsyncExitStack() as mooring:
        await mooring.enter_async_context(asked(stack, rabbitmq))
        one, two = await login(stack, "one"), await login(stack, "two")
        async with closing(rabbitmq, one) as device:
            await device.subscribe("iot/device/one/#", qos=1)
            assert await echoes(device, "iot/device/one/x")
            await mooring.aclose()
            # In the same session RabbitMQ does not ask again about an operation that was allowed.
            for _ in range(3):
                assert await echoes(device, "iot/device/one/x")
            assert not await is_let_in(rabbitmq, two)
            # A new operation ends the session.
            await device.publish("iot/device/one/y", "x", qos=0)
    async with asked(stack, rabbitmq):
        assert await is_let_in(rabbitmq, one)


@ASKING
async def test_without_management_a_disabled_device_keeps_its_session(
    stack: Stack, rabbitmq: Rabbitmq
) -> None:
    async with asked(stack, rabbitmq):
        one = await login(stack, "one")
        async with closing(rabbitmq, one) as device:
            await device.subscribe("iot/device/one/#", qos=1)
            assert await echoes(device, "iot/device/one/x")
            await stack.admin("PATCH", "/devices/one", json={"is_active": False})
            refused = asyncio.create_task(is_let_in(rabbitmq, one))
            # After a second without messages RabbitMQ would ask again.
            while not refused.done():
                assert await echoes(device, "iot/device/one/x")
            assert not await refused
            await device.publish("iot/device/one/y", "x", qos=0)


async def test_with_a_cache_a_disabled_device_is_admitted_again(
    stack: Stack, cached: Rabbitmq
) -> None:
    async with asked(stack, cached):
        one, two = await login(stack, "one"), await login(stack, "two")
        for _ in range(2):
            async with client(cached, one, identifier="one") as device:
                await device.subscribe("iot/device/one/#", qos=1)
                assert await echoes(device, "iot/device/one/x")
        assert not await is_let_in(cached, (one[0], two[1]))
        await stack.admin("PATCH", "/devices/one", json={"is_active": False})
        assert await is_let_in(cached, one, identifier="one")
    # The same holds while Mooring is down.
    async with client(cached, one, identifier="one") as device:
        await device.subscribe("iot/device/one/#", qos=1)
        assert await echoes(device, "iot/device/one/x")
    assert not await is_let_in(cached, two)
    # The cache has no answer for another client id.
    assert not await is_let_in(cached, one, identifier="other")


@ASKING
async def test_it_asks_over_tls(stack: Stack, rabbitmq: Rabbitmq, tmp_path: Path) -> None:
    ours, strange = trustme.CA(), trustme.CA()
    files = {name: tmp_path / name for name in ("cert", "key", "ours", "strange")}
    certificate = ours.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(files["key"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    for name, ca in (("ours", ours), ("strange", strange)):
        ca.cert_pem.write_to_path(files[name])
    _, _, rest = block("brokers/rabbitmq.md", "erlang", "[").partition("{ssl_options, ")
    options = " ".join(rest.removesuffix("}]}].\n").split())
    one = await login(stack, "one")
    async with asking(stack, https_cert_file=files["cert"], https_key_file=files["key"]) as running:
        url = running.url.replace("https://127.0.0.1", "https://localhost")
        rabbitmq.ask_at(f"{url}/{running.secret}/rabbitmq")
        # The trusted CA comes last, because its connection would be used again.
        for name, is_trusted in (("strange", False), ("ours", True)):
            trusting = options.replace("/etc/rabbitmq/mooring-ca.pem", str(files[name]))
            rabbitmq.set("rabbitmq_auth_backend_http", "ssl_options", trusting)
            assert await is_let_in(rabbitmq, one) == is_trusted
    rabbitmq.set("rabbitmq_auth_backend_http", "ssl_options", "[]")
