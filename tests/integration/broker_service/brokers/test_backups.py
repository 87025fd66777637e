"""Backups and capacities of brokers, and what else refers to a broker: regions and pools."""

import json
from typing import Any

import psycopg
import pytest
from mooring.broker.v1 import references_pb2, references_pb2_grpc

from chassis.errors import Forbidden, InvalidInput, MooringError, NotFound
from chassis.trust import Access, Actor
from tests.pools import make_pool
from tests.stack import Stack

MAX_INT64 = 2**63 - 1


async def broker_of(stack: Stack, broker_id: int) -> dict[str, Any]:
    found: dict[str, Any] = (await stack.admin("GET", f"/brokers/{broker_id}")).json()
    return found


async def test_backup_and_capacity_are_set_kept_and_cleared(stack: Stack) -> None:
    backup = await stack.create_broker("Backup")
    body = {"name": "b", "host": "b.example", "port": 1, "backup_broker_id": backup, "capacity": 0}
    made = await stack.admin("POST", "/brokers", json=body)
    assert made.status_code == 201, made.text
    broker = made.json()
    path = f"/brokers/{broker['id']}"
    assert (broker["backup_broker_id"], broker["capacity"]) == (backup, 0)
    kept = (await stack.admin("PATCH", path, json={"port": 2})).json()
    assert (kept["backup_broker_id"], kept["capacity"]) == (backup, 0)
    much = (await stack.admin("PATCH", path, json={"capacity": MAX_INT64})).json()
    assert much["capacity"] == MAX_INT64
    cleared = await stack.admin("PATCH", path, json={"backup_broker_id": None, "capacity": None})
    assert (cleared.json()["backup_broker_id"], cleared.json()["capacity"]) == (None, None)
    assert [
        (await stack.admin("DELETE", f"/brokers/{each}")).status_code
        for each in (backup, broker["id"])
    ] == [204, 204]


@pytest.mark.parametrize("dry_run", ["", "?dry_run=true"])
async def test_a_wrong_backup_or_capacity_is_refused_by_its_name(
    stack: Stack, dry_run: str
) -> None:
    own = stack.default_broker_id
    before = await broker_of(stack, own)
    new = {"name": "n", "host": "n", "port": 1}
    for change, field, reason in (
        ({"backup_broker_id": 999}, "backup_broker_id", "BROKER_UNKNOWN"),
        ({"backup_broker_id": 0}, "backup_broker_id", "INVALID_INPUT"),
        ({"backup_broker_id": 2**31}, "backup_broker_id", "INVALID_INPUT"),
        ({"backup_broker_id": "1"}, "backup_broker_id", "INVALID_INPUT"),
        ({"capacity": -1}, "capacity", "INVALID_INPUT"),
        ({"capacity": 2**63}, "capacity", "INVALID_INPUT"),
        ({"capacity": 1.5}, "capacity", "INVALID_INPUT"),
    ):
        for method, path, body in (
            ("POST", "/brokers", new | change),
            ("PATCH", f"/brokers/{own}", change),
        ):
            answer = await stack.admin(method, path + dry_run, json=body)
            problem = answer.json()
            assert (answer.status_code, problem["field"], problem["reason"]) == (
                *(422, field),
                reason,
            ), (method, change)
    itself = await stack.admin("PATCH", f"/brokers/{own}{dry_run}", json={"backup_broker_id": own})
    assert (itself.status_code, itself.json()["field"]) == (422, "backup_broker_id")
    assert "another broker" in itself.json()["detail"]
    assert await broker_of(stack, own) == before


async def test_a_backup_is_not_deleted_until_it_is_moved(stack: Stack) -> None:
    one, other = await stack.create_broker("One"), await stack.create_broker("Other")
    # The new broker had the old one as its backup too.
    for broker_id in (other, stack.default_broker_id):
        path = f"/brokers/{broker_id}"
        await stack.admin("PATCH", path, json={"backup_broker_id": one})
    refused = await stack.admin("DELETE", f"/brokers/{one}")
    assert (refused.status_code, refused.json()["usage"]["backups"]) == (409, 2)
    assert "2 backups" in refused.json()["detail"]
    moved = await stack.admin("POST", f"/brokers/{one}/move", json={"to_broker_id": other})
    assert moved.status_code == 200, moved.text
    assert moved.json()["moved"]["backups"] == 2
    assert not any(moved.json()["left"].values())
    assert (await broker_of(stack, other))["backup_broker_id"] is None
    assert (await broker_of(stack, stack.default_broker_id))["backup_broker_id"] == other
    assert (await stack.admin("DELETE", f"/brokers/{one}")).status_code == 204


async def test_a_move_takes_regions_and_memberships(stack: Stack) -> None:
    old, new = await stack.create_broker("old"), await stack.create_broker("new", port=2)
    stack.database.execute("INSERT INTO regions (id, mqtt_broker_id) VALUES ('eu', %s)", old)
    replaced, joined = make_pool(stack, old), make_pool(stack, old, new, name="both")
    weigh = "UPDATE pool_members SET weight = 7, priority = 3 WHERE pool_id = %s"
    stack.database.execute(weigh, replaced)
    moved = await stack.admin("POST", f"/brokers/{old}/move", json={"to_broker_id": new})
    counts = moved.json()["moved"]
    assert (counts["regions"], counts["pools"], counts["backups"]) == (1, 2, 0)
    members = "SELECT pool_id, broker_id, weight, priority FROM pool_members ORDER BY pool_id"
    assert stack.database.execute(members) == [(replaced, new, 7, 3), (joined, new, 100, 1)]
    slots = stack.database.execute("SELECT DISTINCT unnest(slots) FROM pools")
    assert slots == [(new,)]
    log = "SELECT after FROM audit_log WHERE action = 'broker.move_users'"
    lines = [row for (row,) in stack.database.execute(log)]
    assert {"to_broker_id": new, "regions": ["eu"], "pools": [replaced, joined]} in lines
    by_service = "SELECT by_sql FROM pool_history WHERE pool_id = %s ORDER BY revision DESC LIMIT 1"
    assert stack.database.execute(by_service, replaced) == [(False,)]
    assert (await stack.admin("DELETE", f"/brokers/{old}")).status_code == 204


async def test_references_are_moved_only_to_an_active_broker(stack: Stack) -> None:
    inactive = await stack.create_broker("off", is_active=False)
    stub = references_pb2_grpc.BrokerReferenceServiceStub
    for source, target, reason in (
        (stack.default_broker_id, inactive, "BROKER_INACTIVE"),
        (stack.default_broker_id, 999, "BROKER_UNKNOWN"),
        (999, stack.default_broker_id, "BROKER_NOT_FOUND"),
        (inactive, inactive, "INVALID_INPUT"),
    ):
        request = references_pb2.MoveBrokerReferencesRequest(
            from_broker_id=source, to_broker_id=target
        )
        with pytest.raises(MooringError) as refused:
            await stack.broker.ask(stub, "MoveBrokerReferences", request)
        assert refused.value.reason == reason
    missing = references_pb2.GetBrokerReferencesRequest(broker_id=999)
    with pytest.raises(NotFound, match="no such broker"):
        await stack.broker.ask(stub, "GetBrokerReferences", missing)
    restricted = Actor("customer", Access.OPERATOR, fleets=frozenset({"demo"}))
    with pytest.raises(Forbidden, match="fleets"):
        await stack.broker.ask(stub, "GetBrokerReferences", missing, actor=restricted)


async def test_a_rollback_restores_backup_and_capacity(stack: Stack) -> None:
    one, other = await stack.create_broker("one"), await stack.create_broker("other")
    path = f"/brokers/{one}"
    change = {"backup_broker_id": other, "capacity": 5}
    assert (await stack.admin("PATCH", path, json=change)).status_code == 200
    cleared = {"backup_broker_id": None, "capacity": None}
    assert (await stack.admin("PATCH", path, json=cleared)).status_code == 200
    lines = (await stack.admin("GET", f"{path}/history")).json()["items"]
    assert lines[0]["changes"] == {
        "backup_broker_id": {"from": other, "to": None},
        "capacity": {"from": 5, "to": None},
    }
    back = (await stack.admin("POST", f"{path}/rollback", json={"revision": 2})).json()
    assert (back["backup_broker_id"], back["capacity"]) == (other, 5)
    shown = (await stack.admin("GET", f"{path}/history/1")).json()
    assert (shown["backup_broker_id"], shown["capacity"]) == (None, None)
    await stack.admin("PATCH", path, json=cleared)
    assert (await stack.admin("DELETE", f"/brokers/{other}")).status_code == 204
    gone = await stack.admin("POST", f"{path}/rollback", json={"revision": 2})
    assert (gone.status_code, gone.json()["reason"], gone.json()["field"]) == (
        *(422, "BROKER_UNKNOWN"),
        "backup_broker_id",
    )


def test_the_database_refuses_a_broker_that_is_its_own_backup(stack: Stack) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="backup_is_another"):
        stack.database.execute(
            "UPDATE mqtt_broker_config SET backup_broker_id = id", role="mooring_operator"
        )


async def test_an_import_names_the_wrong_field(stack: Stack) -> None:
    request = {"name": "imported", "host": "i", "port": 1, "backup_broker_id": 999}
    token = {"Authorization": f"Bearer {stack.admin_token}"}
    answer = await stack.http.post(
        "/api/v1/brokers/import",
        content=json.dumps(request),
        headers={**token, "Content-Type": "application/x-ndjson"},
    )
    assert (answer.status_code, '"backup_broker_id"' in answer.text) == (200, True), answer.text
    with pytest.raises(InvalidInput):
        await stack.create_broker("unknown", backup_broker_id=999)
