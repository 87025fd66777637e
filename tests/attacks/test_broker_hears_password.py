"""A broker hears the passwords of its devices, and moves on with them."""

import pytest

from tests.brokers import asking, secret_of
from tests.stack import Stack


@pytest.mark.parametrize("way", ["sql", "asked"])
async def test_what_one_broker_heard_does_not_open_the_next(stack: Stack, way: str) -> None:
    heard = (await stack.register("d")).json()["mqtt"]
    other = await stack.create_broker("Other")
    await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": other})
    told = (await stack.connection("d")).json()
    if way == "sql":
        # What a broker that reads SQL compares with, and finds itself in.
        rows = stack.database.execute(
            "SELECT salt, password_hash FROM mqtt_users WHERE %s = ANY (broker_ids)",
            other,
            role="mqtt_reader",
        )
        hashed = "SELECT encode(sha256((%s::text || %s::text)::bytea), 'hex')"
        [(salt, kept)] = rows
        assert stack.database.execute(hashed, salt, told["password"]) == [(kept,)]
        assert stack.database.execute(hashed, salt, heard["password"]) != [(kept,)]
        return
    secret = secret_of(stack, other)
    async with asking(stack) as brokers:
        login = told["username"], told["password"]
        assert await brokers.connects(*login, secret=secret)
        assert not await brokers.connects(heard["username"], heard["password"], secret=secret)
        # Nor does the next one's open the one before.
        assert not await brokers.connects(*login)


async def test_the_password_before_opens_only_brokers_that_heard_it(stack: Stack) -> None:
    """A rotation keeps it for the same broker; a move keeps it for none that is new."""
    told = (await stack.register("d")).json()["mqtt"]
    login = told["username"], told["password"]
    ours = secret_of(stack, stack.default_broker_id)
    other = await stack.create_broker("Other")
    secret = secret_of(stack, other)
    rotate = "/api/v1/device/d/credentials/rotate"
    async with asking(stack) as brokers:
        await stack.http.post(rotate, headers={"Authorization": "Bearer test-api-key"})
        assert await brokers.connects(*login, secret=ours)
        await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": other})
        before = (await stack.connection("d")).json()
        assert await brokers.connects(before["username"], before["password"], secret=secret)
        assert not await brokers.connects(*login, secret=secret)
