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
    # The password before is accepted for as long as the operator has set, and not longer.
    stack.database.execute("UPDATE devices SET previous_until = now()")
    secret = secret_of(stack, other)
    async with asking(stack) as brokers:
        login = told["username"], told["password"]
        assert await brokers.connects(*login, secret=secret)
        assert not await brokers.connects(heard["username"], heard["password"], secret=secret)
        # Nor does the next one's open the one before.
        assert not await brokers.connects(*login)
