"""Changes of what places devices take turns, and none is refused for it."""

import asyncio
from collections import Counter

import psycopg

from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack

ROUNDS = 20


def deadlocks(stack: Stack) -> int:
    """The number of deadlocks, after all sessions have reported theirs to the server."""
    name = stack.database.name
    with psycopg.connect(stack.database.server.superuser_url(), autocommit=True) as connection:
        # A session reports its statistics at the latest when it ends.
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
            [name],
        )
        found = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = %s", [name]
        ).fetchone()
    assert found
    return int(found[0])


async def test_fleets_are_restricted_to_a_broker_that_is_renamed_and_deleted(stack: Stack) -> None:
    other = await stack.create_broker("other")
    fleets = ["f1", "f2", "f3"]
    for fleet in fleets:
        await stack.create_fleet(fleet)
    seen: Counter[tuple[str, int]] = Counter()
    for n in range(ROUNDS):
        broker = f"/brokers/{await stack.create_broker(f'b{n}')}"
        broker_id = int(broker.rpartition("/")[2])
        restricted = {"allowed_broker_ids": [broker_id]}
        used = {"mqtt_broker_id": broker_id, **restricted}
        asked = [
            ("restrict", stack.admin("PATCH", "/fleets/f1", json=restricted)),
            ("rename", stack.admin("PATCH", broker, json={"name": f"renamed {n}"})),
            ("restrict", stack.admin("PATCH", "/fleets/f2", json=used)),
            ("delete", stack.admin("DELETE", broker)),
            ("rename", stack.admin("PATCH", broker, json={"name": f"again {n}"})),
            ("restrict", stack.admin("PATCH", "/fleets/f3", json=used)),
            (
                "move",
                stack.admin(
                    "POST", f"{broker}/move", json={"to_broker_id": other, "move_allowances": True}
                ),
            ),
        ]
        answers = await asyncio.gather(*(request for _, request in asked))
        seen.update(
            (what, each.status_code) for (what, _), each in zip(asked, answers, strict=True)
        )
    assert seen.keys() <= {
        *(("restrict", 200), ("restrict", 422), ("rename", 200), ("rename", 404)),
        *(("delete", 204), ("delete", 409), ("move", 200), ("move", 404)),
    }, seen
    assert deadlocks(stack) == 0


async def test_registrations_do_not_wait_for_turns(stack: Stack) -> None:
    """They succeed while another session locks the table against all reads."""
    await stack.register("known")
    headers = {"Authorization": "Bearer test-api-key"}
    path = "/api/v1/device/known/credentials/rotate"
    with owned(stack) as connection:
        connection.execute("LOCK TABLE turns IN ACCESS EXCLUSIVE MODE")
        change = {"host": "elsewhere.example.com"}
        broker = f"/brokers/{stack.default_broker_id}"
        changing = asyncio.create_task(stack.admin("PATCH", broker, json=change))
        # A change that takes a turn waits for the lock.
        await waiting(stack, 1)
        registered = await asyncio.gather(*(stack.register(f"d{n}") for n in range(20)))
        assert {answer.status_code for answer in registered} == {201}
        assert (await stack.register("known")).status_code == 200
        assert (await stack.connection("known")).status_code == 200
        assert (await stack.http.post(path, headers=headers)).status_code == 200
        assert not changing.done()
        connection.commit()
    assert (await changing).status_code == 200
