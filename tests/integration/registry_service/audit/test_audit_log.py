"""The audit log: every change and every refusal has a line, and lines are never changed."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from mooring.broker.v1 import brokers_pb2, brokers_pb2_grpc
from mooring.registry.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    devices_pb2,
    devices_pb2_grpc,
    fleets_pb2,
    tokens_pb2,
)
from structlog.testing import capture_logs

import registry_service.__main__
from chassis.errors import Forbidden, InvalidInput, MooringError, NotFound
from chassis.trust import Access, Actor, Credentials
from tests.stack import PATIENCE_S, Database, Peer, Stack

VIEWER = Actor("vera", Access.VIEWER, "id-of-vera")
OPERATOR = Actor("otto", Access.OPERATOR, "id-of-otto")


async def lines(stack: Stack, **filters: Any) -> list[audit_pb2.AuditLine]:
    """All lines that match, the newest first."""
    request = audit_pb2.ListAuditLogRequest(**filters)
    return list((await stack.registry.audit("ListAuditLog", request)).lines)


async def until(stack: Stack, count: int, **filters: Any) -> list[audit_pb2.AuditLine]:
    """The lines that match, as soon as they stand for at least `count` attempts."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await lines(stack, **filters)
            if sum(line.count for line in found) >= count:
                return found
            await asyncio.sleep(0.05)


def summary(line: audit_pb2.AuditLine) -> tuple[str, str, str, str]:
    return line.actor, line.action, line.subject, line.refusal


async def update_device(stack: Stack, actor: Actor, names: Sequence[str], **fields: Any) -> None:
    await stack.registry.ask(
        devices_pb2_grpc.DeviceServiceStub,
        "UpdateDevice",
        devices_pb2.UpdateDeviceRequest(
            uuid="one",
            fields=devices_pb2.DeviceFields(**fields),
            update_mask=FieldMask(paths=names),
        ),
        actor=actor,
    )


async def test_a_line_has_the_actor_the_action_and_the_values_before_and_after(
    stack: Stack,
) -> None:
    await stack.register("one")
    await update_device(
        stack,
        OPERATOR,
        ["mqtt_broker_id", "device_name", "region"],
        mqtt_broker_id=stack.default_broker_id,
        device_name="Test Device",
    )
    (line,) = await lines(stack, subject="one")
    assert summary(line) == ("otto", "device.update", "one", "")
    assert (line.actor_id, line.count) == ("id-of-otto", 1)
    # A field that was named, but did not change, is not in the line.
    assert line.before == '{"mqtt_broker_id": null}'
    assert line.after == f'{{"mqtt_broker_id": {stack.default_broker_id}}}'

    await update_device(stack, OPERATOR, ["device_name"], device_name="Test Device")
    assert len(await lines(stack, subject="one")) == 1

    await stack.admin("DELETE", "/devices/one")
    deleted = (await lines(stack, subject="one"))[0]
    assert summary(deleted) == ("tests", "device.delete", "one", "")
    assert '"device_name": "Test Device"' in deleted.before
    assert not deleted.HasField("after")
    for secret in ("hash", "salt"):
        assert secret not in deleted.before
    assert deleted.request_id


async def test_a_change_through_http_carries_the_request_id_of_the_answer(stack: Stack) -> None:
    answer = await stack.admin("PATCH", "/fleets/demo", json={"name": "Another"})
    (line,) = await lines(stack, action="fleet.update")
    assert line.request_id == answer.headers["x-request-id"]
    assert (line.before, line.after) == ('{"name": "demo"}', '{"name": "Another"}')


async def test_a_change_that_the_database_refuses_has_no_line(stack: Stack) -> None:
    await stack.register("one")
    with pytest.raises(MooringError):
        await update_device(stack, OPERATOR, ["mqtt_broker_id"], mqtt_broker_id=4711)
    assert [line for line in await lines(stack, subject="one") if not line.refusal] == []


async def test_values_before_are_right_for_concurrent_changes(stack: Stack) -> None:
    """Each line begins with the values with which another line ends."""
    names = [f"n{number}" for number in range(12)]
    await asyncio.gather(
        *(
            stack.registry.fleets(
                "UpdateFleet",
                fleets_pb2.UpdateFleetRequest(
                    id="demo",
                    fields=fleets_pb2.FleetFields(name=name),
                    update_mask=FieldMask(paths=["name"]),
                ),
            )
            for name in names
        )
    )
    found = await lines(stack, action="fleet.update")
    assert len(found) == len(names)
    after_of = {line.before: line.after for line in found}
    state, seen = '{"name": "demo"}', 0
    while state in after_of:
        state, seen = after_of[state], seen + 1
    assert seen == len(names)


async def test_restricting_a_fleet_has_a_line(stack: Stack) -> None:
    change = {"allowed_broker_ids": [stack.default_broker_id]}
    await stack.admin("PATCH", "/fleets/demo", json=change)
    (line,) = await lines(stack, action="fleet.update")
    assert line.before == '{"allowed_broker_ids": null}'
    assert line.after == f'{{"allowed_broker_ids": [{stack.default_broker_id}]}}'


async def test_refused_callers_have_lines_of_both_services(stack: Stack) -> None:
    with pytest.raises(Forbidden):
        await update_device(stack, VIEWER, ["region"])
    with pytest.raises(Forbidden):
        await stack.broker.ask(
            brokers_pb2_grpc.BrokerServiceStub,
            "DeleteBroker",
            brokers_pb2.DeleteBrokerRequest(id=7),
            actor=VIEWER,
        )
    with pytest.raises(Forbidden):  # reading can be forbidden too
        await stack.registry.ask(
            audit_pb2_grpc.AuditServiceStub,
            "ListAuditLog",
            audit_pb2.ListAuditLogRequest(),
            actor=OPERATOR,
        )
    found = await until(stack, 3, refused_only=True)
    assert {summary(line) for line in found} == {
        ("vera", "device.update", "one", "FORBIDDEN"),
        ("vera", "broker.delete", "7", "FORBIDDEN"),
        ("otto", "audit.list_log", "", "FORBIDDEN"),
    }
    assert {line.actor_id for line in found} == {"id-of-vera", "id-of-otto"}


async def test_a_refused_change_has_a_line_and_a_read_of_nothing_has_none(
    stack: Stack,
) -> None:
    get = devices_pb2.GetDeviceRequest(uuid="nobody")
    with pytest.raises(NotFound):
        await stack.registry.devices("GetDevice", get)
    with pytest.raises(InvalidInput):
        await lines(stack, cursor="nonsense")
    with pytest.raises(NotFound):
        await stack.registry.devices("DeleteDevice", devices_pb2.DeleteDeviceRequest(uuid="nobody"))
    await stack.admin("PATCH", "/fleets/demo", json={"name": ""})
    found = await until(stack, 2, refused_only=True)
    assert {summary(line) for line in found} == {
        ("tests", "device.delete", "nobody", "DEVICE_NOT_FOUND"),
        ("tests", "fleet.update", "demo", "INVALID_INPUT"),
    }


async def test_many_refusals_share_few_lines_that_count_all_of_them(stack: Stack) -> None:
    async with registry_service.__main__.running(stack.registry_config()) as port:
        peer = stack.peer_at(f"127.0.0.1:{port}")

        async def attempt(number: int) -> None:
            with pytest.raises(Forbidden):
                await peer.ask(
                    devices_pb2_grpc.DeviceServiceStub,
                    "DeleteDevice",
                    devices_pb2.DeleteDeviceRequest(uuid=f"d{number}"),
                    actor=VIEWER,
                )

        for first in range(0, 500, 50):
            await asyncio.gather(*map(attempt, range(first, first + 50)))
        await peer.close()
    # The registry has stopped, and has written the refusals that it held back.
    found = await lines(stack, actor="vera")
    assert sum(line.count for line in found) == 500
    assert 20 <= len(found) <= 22
    assert (found[0].action, found[0].refusal) == ("audit.overflow", "TOO_MANY_TO_TELL_APART")


async def test_everything_is_written_when_the_service_stops(stack: Stack) -> None:
    async with registry_service.__main__.running(stack.registry_config()) as port:
        peer = stack.peer_at(f"127.0.0.1:{port}")
        for _ in range(200):
            with pytest.raises(Forbidden):
                await peer.ask(
                    devices_pb2_grpc.DeviceServiceStub,
                    "DeleteDevice",
                    devices_pb2.DeleteDeviceRequest(uuid="one"),
                    actor=VIEWER,
                )
        await peer.close()
    found = await lines(stack, actor="vera")
    assert sum(line.count for line in found) == 200
    assert len(found) <= 3
    together = max(found, key=lambda line: line.count)
    assert '"first_at"' in together.details
    assert '"last_at"' in together.details


async def test_unknown_tokens_share_lines_that_contain_no_secret(stack: Stack) -> None:
    secret = "mat_" + "x" * 43
    for number in range(5):
        answer = await stack.http.get(
            "/api/v1/brokers", headers={"Authorization": f"Bearer {secret}{number}"}
        )
        assert answer.status_code == 401
    (line,) = await until(stack, 1, action="token.authenticate")
    assert summary(line) == ("", "token.authenticate", "", "TOKEN_UNKNOWN")
    assert '"most": {"127.0.0.1": ' in line.details
    assert secret[:12] not in str(line)
    # The other attempts are held back for the next line.
    assert len(await lines(stack, action="token.authenticate")) == 1


async def test_an_untrusted_process_has_a_line(stack: Stack) -> None:
    posing = Peer(f"127.0.0.1:{stack.registry_port}", Credentials(lambda: "x" * 32))
    with pytest.raises(MooringError):
        await posing.tokens("CreateToken", tokens_pb2.CreateTokenRequest(name="me"))
    await posing.close()
    (line,) = await until(stack, 1, action="service.authenticate")
    assert summary(line) == ("", "service.authenticate", "", "UNTRUSTED_SERVICE")
    assert '"most": {"127.0.0.1": 1}' in line.details


async def test_values_of_callers_cannot_break_a_line(stack: Stack) -> None:
    odd = Actor("a\0b\x1b" + "é" * 400, Access.VIEWER, "7")
    secret = "mat_" + "y" * 43
    for uuid in (secret, "a\0b", "z" * 10_000):
        with pytest.raises(Forbidden):
            await stack.registry.ask(
                devices_pb2_grpc.DeviceServiceStub,
                "DeleteDevice",
                devices_pb2.DeleteDeviceRequest(uuid=uuid),
                actor=odd,
            )
    found = await until(stack, 3, actor_id="7")
    assert {line.subject for line in found} == {"(hidden)", "a?b", "z" * 255}
    assert {line.actor for line in found} == {("a?b?" + "é" * 400)[:255]}


async def test_an_unavailable_log_does_not_affect_answers(stack: Stack) -> None:
    """Refusals are answered as usual; lines that cannot be written are written later."""
    stack.database.execute("ALTER TABLE audit_log RENAME TO audit_log_away")
    with capture_logs() as said:
        for _ in range(50):
            with pytest.raises(Forbidden):
                await update_device(stack, VIEWER, ["region"])
        async with asyncio.timeout(PATIENCE_S):
            while not any("not in the audit log yet" in line["event"] for line in said):
                await asyncio.sleep(0.05)
    stack.database.execute("ALTER TABLE audit_log_away RENAME TO audit_log")
    (line,) = await until(stack, 50, actor="vera")
    assert (*summary(line), line.count) == ("vera", "device.update", "one", "FORBIDDEN", 50)


async def test_a_line_that_the_database_refuses_does_not_delay_others(stack: Stack) -> None:
    stack.database.execute("ALTER TABLE audit_log ADD CHECK (actor <> 'vera')")
    with capture_logs() as said:
        for actor in (VIEWER, Actor("walt", Access.VIEWER, "id-of-walt")):
            with pytest.raises(Forbidden):
                await update_device(stack, actor, ["region"])
        async with asyncio.timeout(PATIENCE_S):
            while not any(line["event"] == "the audit log refuses a line" for line in said):
                await asyncio.sleep(0.05)
        await until(stack, 1, actor="walt")
    assert await lines(stack, actor="vera") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DROP TABLE audit_log",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "INSERT INTO audit_log (actor, at) VALUES ('a', '2020-01-01')",
        "INSERT INTO audit_log (actor, id) OVERRIDING SYSTEM VALUE VALUES ('a', 5)",
        "UPDATE audit_seals SET mac = ''",
        "DELETE FROM audit_seals",
        "TRUNCATE audit_seals",
    ],
)
@pytest.mark.parametrize(
    "role", ["mooring_registry", "mooring_broker", "mooring_operator", "mooring_sealer"]
)
def test_no_role_of_a_service_can_change_lines(
    database: Database, role: str, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.execute(statement, role=role)


async def test_pages_and_filters(stack: Stack) -> None:
    stack.database.execute("TRUNCATE audit_log")
    stack.database.execute(
        "INSERT INTO audit_log (actor, actor_id, action, subject, refusal, request_id, at)"
        " SELECT 'a' || n %% 3, 'i' || n %% 3, (ARRAY['broker.update', 'broker.delete',"
        " 'brokerage.update', 'fleet.update'])[1 + n %% 4], 's' || n %% 5,"
        " CASE n %% 7 WHEN 0 THEN 'FORBIDDEN' ELSE '' END, '',"
        # Ten lines have the same time.
        " '2026-01-01T00:00:00Z'::timestamptz + n / 10 * interval '1 second'"
        " FROM generate_series(0, 199) n"
    )
    rows = stack.database.execute(
        "SELECT id, actor, actor_id, action, subject, refusal, extract(epoch FROM at)::bigint"
        " FROM audit_log ORDER BY at DESC, id DESC"
    )
    noon = 1767225600

    async def ids(**filters: Any) -> list[int]:
        found: list[int] = []
        cursor = ""
        while True:
            request = audit_pb2.ListAuditLogRequest(page_size=7, cursor=cursor, **filters)
            page = await stack.registry.audit("ListAuditLog", request)
            found += [line.id for line in page.lines]
            cursor = page.next_cursor
            if not cursor:
                return found

    assert await ids() == [row[0] for row in rows]
    assert await ids(actor="a1") == [row[0] for row in rows if row[1] == "a1"]
    assert await ids(actor_id="i2") == [row[0] for row in rows if row[2] == "i2"]
    assert await ids(action="broker.update") == [
        row[0] for row in rows if row[3] == "broker.update"
    ]
    assert await ids(action="broker.") == [row[0] for row in rows if row[3].startswith("broker.")]
    assert await ids(subject="s4") == [row[0] for row in rows if row[4] == "s4"]
    assert await ids(refused_only=True) == [row[0] for row in rows if row[5]]
    since, until = Timestamp(seconds=noon + 5), Timestamp(seconds=noon + 9)
    assert await ids(since=since, until=until) == [
        row[0] for row in rows if noon + 5 <= row[6] < noon + 9
    ]
    assert await ids(
        actor="a0", action="broker.", subject="s0", refused_only=True, until=until
    ) == [
        row[0]
        for row in rows
        if row[1] == "a0"
        and row[3].startswith("broker.")
        and row[4] == "s0"
        and row[5]
        and row[6] < noon + 9
    ]
    assert await ids(actor="' OR true --") == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": 501}, "page_size"),
        ({"page_size": -1}, "page_size"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "MQ=="}, "cursor"),
        ({"cursor": "IjEi"}, "cursor"),
        ({"cursor": "Ijk5OTk5OTk5OTk5OTk5OTk5OS4xIg=="}, "cursor"),
        ({"actor": "a\0"}, "actor"),
        ({"subject": "s" * 256}, "subject"),
        ({"since": Timestamp(seconds=-(2**60))}, "since"),
        ({"until": Timestamp(nanos=-1)}, "until"),
    ],
)
async def test_an_invalid_filter_is_named(stack: Stack, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await lines(stack, **fields)
    assert refused.value.field == field
