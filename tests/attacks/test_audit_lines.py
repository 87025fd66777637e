"""An attacker with a service's role in the database cannot write a line for another actor
unnoticed.
"""

import base64
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from chassis.database import engine_of
from chassis.tickets import SigningKeys
from chassis.trust import Access, Actor
from registry_service.audit.sealing.chain import Fault
from registry_service.audit.sealing.store import reader
from registry_service.audit.sealing.verification import verify
from tests.stack import Stack, ticket_of

OTTO = Actor("otto", Access.ADMIN, "11111111-1111-4111-8111-111111111111")
INSERT = (
    "INSERT INTO audit_log (actor, actor_id, action, subject, refusal, request_id, ticket)"
    " VALUES (%s, %s, %s, %s, %s, 'r', %s) RETURNING id"
)


async def unproved(stack: Stack) -> set[int]:
    """The lines that verification reports."""
    engine = engine_of(stack.database.url("mooring_operator"), pool_size=1)
    try:
        async with reader(engine) as chain:
            report = await verify(chain, {}, ticket_keys=stack.signing.public)
    finally:
        await engine.dispose()
    return {
        line
        for finding in report.findings
        if finding.fault is Fault.NOT_PROVED
        for line in finding.lines
    }


def forged(stack: Stack, *values: Any, role: str = "mooring_broker") -> int:
    """Writes a line as `role` and returns its id: actor, its id, action, subject,
    refusal, ticket.
    """
    # The role may not read the lines that it writes.
    plain = INSERT.removesuffix(" RETURNING id")
    stack.database.execute(plain, *values, role=role)
    [(found,)] = stack.database.execute("SELECT max(id) FROM audit_log")
    return int(found)


async def test_lines_of_ordinary_work_are_proved(stack: Stack) -> None:
    await stack.register("one")
    await stack.admin("PATCH", "/devices/one", json={"device_name": "renamed"})
    await stack.admin("POST", "/brokers", json={"name": "b", "host": "h", "port": 1})
    await stack.admin("POST", "/brokers", json={"name": "b", "host": "h", "port": 1})
    await stack.http.post(
        "/api/v1/device/one/credentials/rotate", headers={"Authorization": "Bearer test-api-key"}
    )
    lines = stack.database.execute("SELECT DISTINCT session_role FROM audit_log")
    assert {role for (role,) in lines} == {"mooring_broker", "mooring_registry"}
    assert await unproved(stack) == set()


async def test_a_line_in_the_name_of_another_actor_is_reported(stack: Stack) -> None:
    good = ticket_of(stack.signing, OTTO)
    old = ticket_of(stack.signing, OTTO, now=1_700_000_000)
    other = ticket_of(stack.signing, Actor("vera", Access.VIEWER, "2"))
    stranger = SigningKeys(7, dict.fromkeys([7], next(iter(stack.signing.keys.values()))))
    delete = (OTTO.name, OTTO.id, "broker.delete", "1")
    bad = {
        forged(stack, *delete, "", None),
        forged(stack, *delete, "", old),
        forged(stack, *delete, "", other),
        forged(stack, *delete, "", good[:-1]),
        forged(stack, *delete, "", ticket_of(stranger, OTTO)),
        forged(stack, *delete, "FORBIDDEN", old),
        # As a job of that person, which only the registry runs.
        forged(stack, OTTO.name, OTTO.id, "job.start", "1", "", old),
        # Without a person's name: as a device, and as a command of Mooring.
        forged(stack, "", OTTO.id, "broker.delete", "1", "", None),
        forged(stack, "device", OTTO.id, "broker.delete", "1", "", None),
        forged(
            stack,
            "registry_service.administration.server_keys",
            OTTO.id,
            "broker.delete",
            "1",
            "",
            None,
        ),
        forged(stack, OTTO.name, OTTO.id, "broker.delete", "1", "", None, role="mooring_registry"),
        # As a device or a command, for which only the role of its own service may write.
        *(
            forged(stack, name, subject, "token.create", subject, "", None, role=role)
            for name, subject, role in (
                ("device", "d", "mooring_broker"),
                ("device", "d", "mooring"),
                ("registry_service.bootstrap", "", "mooring_broker"),
                ("registry_service.administration.server_keys", "", "mooring_broker"),
                ("broker_service.reencrypt", "", "mooring_registry"),
            )
        ),
        # By SQL, as the owner.
        forged(stack, *delete, "", None, role="mooring"),
    }
    proved = forged(stack, *delete, "", good)
    forged(stack, "broker_service.reencrypt", "", "broker.reencrypt", "", "", None)
    assert await unproved(stack) == bad
    assert proved not in bad


@pytest.mark.parametrize("role", ["mooring_broker", "mooring_registry"])
async def test_no_service_writes_lines_as_another_service(stack: Stack, role: str) -> None:
    statement = (
        "INSERT INTO audit_log (actor, actor_id, action, subject, request_id, session_role)"
        " VALUES ('a', '', 'x.y', '', '', 'mooring_registry')"
    )
    with pytest.raises(errors.InsufficientPrivilege):
        stack.database.execute(statement, role=role)
    with (
        psycopg.connect(stack.database.url(role), autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute("SET ROLE mooring")
    line = forged(stack, "device", "d", "device.rotate_credentials", "d", "", None, role=role)
    [(written,)] = stack.database.execute("SELECT session_role FROM audit_log WHERE id = %s", line)
    assert written == role


async def test_lines_from_before_the_proofs_are_not_reported(stack: Stack) -> None:
    line = forged(stack, OTTO.name, OTTO.id, "broker.delete", "1", "", None)
    stack.database.execute("UPDATE audit_log SET session_role = NULL, ticket = NULL")
    assert await unproved(stack) == set()
    forged(stack, "", "", "service.authenticate", "", "UNTRUSTED_SERVICE", None)
    assert await unproved(stack) == set()
    # Between lines with a role, a line without one is reported.
    late = forged(stack, OTTO.name, OTTO.id, "broker.delete", "1", "", None)
    stack.database.execute("UPDATE audit_log SET session_role = NULL WHERE id = %s", late)
    assert await unproved(stack) == {late}
    assert line < late


def test_an_invalid_ring_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ring"
    key = base64.b64encode(bytes(31)).decode()
    file.write_text(json.dumps({"active": 1, "keys": [{"id": 1, "secret": key}]}))
    with pytest.raises(SystemExit, match="32 bytes"):
        SigningKeys.read(file)
