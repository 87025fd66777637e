"""A broker's operator learns the passwords of its devices, and tries them at their next broker."""

import pytest

from tests.brokers import asking, secret_of
from tests.stack import Stack


@pytest.mark.parametrize("way", ["sql", "asked"])
async def test_a_password_does_not_open_the_next_broker(stack: Stack, way: str) -> None:
    heard = (await stack.register("d")).json()["mqtt"]
    other = await stack.create_broker("Other")
    await stack.admin("PUT", "/devices/d", json={"mqtt_broker_id": other})
    answer = (await stack.connection("d")).json()
    if way == "sql":
        # The hash with which a broker that reads SQL compares.
        rows = stack.database.execute(
            "SELECT salt, password_hash FROM mqtt_users WHERE %s = ANY (broker_ids)",
            other,
            role="mqtt_reader",
        )
        hashed = "SELECT encode(sha256((%s::text || %s::text)::bytea), 'hex')"
        [(salt, kept)] = rows
        assert stack.database.execute(hashed, salt, answer["password"]) == [(kept,)]
        assert stack.database.execute(hashed, salt, heard["password"]) != [(kept,)]
        return
    secret = secret_of(stack, other)
    async with asking(stack) as brokers:
        login = answer["username"], answer["password"]
        assert await brokers.connects(*login, secret=secret)
        assert not await brokers.connects(heard["username"], heard["password"], secret=secret)
        # The next broker's password does not open the previous one either.
        assert not await brokers.connects(*login)


async def test_the_password_before_opens_only_brokers_that_heard_it(stack: Stack) -> None:
    """After a rotation the same broker accepts the previous password; after a move a new one does
    not.
    """
    answer = (await stack.register("d")).json()["mqtt"]
    login = answer["username"], answer["password"]
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
