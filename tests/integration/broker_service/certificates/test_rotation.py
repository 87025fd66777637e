"""The rotation of a certificate: what devices are answered, which devices got what, its end."""

from collections.abc import Mapping
from typing import Any

import pytest
import trustme
from prometheus_client import REGISTRY

import broker_service.placements.snapshot
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import ISSUER, KEY, LEAF, MIDDLE, root

UUIDS = [f"device-{n}" for n in range(5)]
TLS = {"name": "TLS", "host": "h", "port": 8883, "protocol": "mqtts"}


async def uploaded(stack: Stack, pem: str, **given: Any) -> int:
    made = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": pem, **given})
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


async def broker_with(stack: Stack, **fields: Any) -> int:
    made = await stack.admin("POST", "/brokers", json={**TLS, **fields})
    assert made.status_code == 201, made.text
    return int(made.json()["id"])


async def refusal(stack: Stack, method: str, path: str, **options: Any) -> Any:
    answer = await stack.admin(method, path, **options)
    assert answer.status_code >= 400, answer.text
    problem = answer.json()
    return answer.status_code, problem["reason"], problem.get("usage")


async def ca_cert_of(stack: Stack, uuid: str) -> str:
    config: dict[str, str] = (await stack.connection(uuid)).json()["brokerConfig"]
    return config["caCert"]


async def told(stack: Stack, path: str, which: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = f"?told={which}&limit=2&cursor={cursor}"
        page = (await stack.admin("GET", f"{path}/devices{query}")).json()
        found += page["items"]
        cursor = page["next_cursor"]
    return found


async def check(stack: Stack, path: str, **expected: list[str]) -> Mapping[str, Any]:
    """Compares the counts and lists of a rotation with `expected`; returns the rotation."""
    rotation: dict[str, Any] = (await stack.admin("GET", path)).json()
    assert rotation["told"] == {which: len(uuids) for which, uuids in expected.items()}
    for which, uuids in expected.items():
        assert await told(stack, path, which) == uuids
    return rotation


async def test_devices_get_both_certificates_until_the_new_one_takes_over(stack: Stack) -> None:
    old_pem, new_pem = root(), root()
    old = await uploaded(stack, old_pem)
    broker = await broker_with(stack, ca_certificate_id=old)
    twin = await broker_with(stack, name="Twin", ca_certificate_id=old)
    other = await broker_with(stack, name="Other", ca_cert=root())
    await stack.admin("POST", f"/brokers/{broker}/default")
    for uuid in (*UUIDS, "elsewhere", "disabled"):
        await stack.register(uuid)
    await stack.admin("PATCH", "/devices/elsewhere", json={"mqtt_broker_id": other})
    await stack.admin("PATCH", "/devices/disabled", json={"is_active": False})
    elsewhere = (await stack.connection("elsewhere")).json()

    path = f"/certificates/{old}/rotation"
    assert await refusal(stack, "GET", path) == (404, "ROTATION_NOT_FOUND", None)
    staged = await stack.admin(
        "POST", path, json={"replacement": {"pem": new_pem}, "threshold_percent": 80}
    )
    assert staged.status_code == 201, staged.text
    new = staged.json()["replacement_id"]
    assert staged.json()["broker_ids"] == [broker, twin]
    assert "0.0 % have, and 80 % must" in staged.json()["too_early"]
    await check(stack, path, old=UUIDS, both=[], new=[])
    early = await refusal(stack, "POST", f"{path}/cutover", json={})
    assert early == (409, "ROTATION_TOO_EARLY", {"old": 5, "both": 0, "new": 0})

    # Devices that ask get both, the old one first; the answers of other devices are unchanged.
    for uuid in UUIDS[:4]:
        assert await ca_cert_of(stack, uuid) == old_pem + new_pem
    assert (await stack.connection("elsewhere")).json() == elsewhere
    rotation = await check(stack, path, old=UUIDS[4:], both=UUIDS[:4], new=[])
    assert rotation["too_early"] is None
    # Administrators see the certificate that they have set.
    assert (await stack.admin("GET", f"/brokers/{twin}")).json()["ca_cert"] == old_pem

    over = await stack.admin("POST", f"{path}/cutover", json={})
    assert (over.status_code, over.json()["id"]) == (200, new)
    assert over.json()["broker_ids"] == [broker, twin]
    assert await ca_cert_of(stack, UUIDS[0]) == new_pem
    assert await refusal(stack, "GET", path) == (404, "ROTATION_NOT_FOUND", None)
    assert (await stack.admin("GET", f"/certificates/{old}")).json()["broker_ids"] == []
    # The earlier refusal is written in the background, and may come later.
    lines = (await stack.admin("GET", "/audit-log?limit=5")).json()["items"]
    line = next(line for line in lines if line["refusal"] is None)
    assert (line["action"], line["subject"]) == ("rotation.cut_over", str(old))
    assert line["after"]["devices_told"] == {"old": 1, "both": 4, "new": 0}

    # The old one is set again by hand; one device has been told only the new one.
    await stack.admin("PATCH", f"/brokers/{broker}", json={"ca_certificate_id": old})
    await stack.admin("POST", path, json={"replacement_id": new})
    await check(stack, path, old=UUIDS[4:], both=UUIDS[1:4], new=UUIDS[:1])
    assert (await stack.admin("DELETE", path)).status_code == 204
    assert await ca_cert_of(stack, UUIDS[0]) == old_pem


async def test_staging_reads_no_more_than_the_brokers_that_it_touches(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await uploaded(stack, root())
    for name in ("a", "b"):
        await broker_with(stack, name=name, ca_certificate_id=old)
    for name in ("c", "d", "e"):
        await broker_with(stack, name=name, ca_cert=root())
    # A full reread happens now and then; it must not happen during this test.
    monkeypatch.setattr(broker_service.placements.snapshot, "REREAD_S", 3_600.0)

    def read() -> tuple[float, ...]:
        name = "mooring_placement_rows_read_total"
        values = [REGISTRY.get_sample_value(name, {"kind": kind}) for kind in ("broker", "fleet")]
        return tuple(value or 0.0 for value in values)

    before = read()
    path = f"/certificates/{old}/rotation"
    staged = await stack.admin("POST", path, json={"replacement": {"pem": root()}})
    assert staged.status_code == 201, staged.text
    assert [now - was for now, was in zip(read(), before, strict=True)] == [2.0, 0.0]


async def test_a_forced_cutover_does_not_wait_for_devices(stack: Stack) -> None:
    old = await uploaded(stack, root())
    await stack.admin("POST", f"/brokers/{await broker_with(stack, ca_certificate_id=old)}/default")
    await stack.register()
    path = f"/certificates/{old}/rotation"
    await stack.admin("POST", path, json={"replacement": {"pem": root()}})
    over = await stack.admin("POST", f"{path}/cutover", json={"force": True})
    assert over.status_code == 200, over.text
    [line] = (await stack.admin("GET", "/audit-log?limit=1")).json()["items"]
    assert line["after"]["is_forced"] is True


async def test_a_client_certificate_is_replaced_at_once(stack: Stack) -> None:
    client = {"kind": "client", "private_key": KEY}
    old = await uploaded(stack, LEAF + ISSUER, **client)
    broker = await broker_with(stack, client_certificate_id=old)
    await stack.admin("POST", f"/brokers/{broker}/default")
    await stack.register()
    issued = MIDDLE.issue_cert("device.example.com")
    pem = "".join(text.bytes().decode() for text in issued.cert_chain_pems)
    path = f"/certificates/{old}/rotation"
    keyless = {"replacement": {"pem": pem}}
    assert (await stack.admin("POST", path, json=keyless)).json()["field"] == "replacement"
    keyless["replacement"]["private_key"] = issued.private_key_pem.bytes().decode()
    staged = (await stack.admin("POST", path, json=keyless)).json()
    assert (staged["told"], staged["too_early"]) == (None, None)
    config = (await stack.connection("test-device-123")).json()["brokerConfig"]
    assert config["clientCert"] == LEAF + ISSUER
    await stack.admin("POST", f"{path}/cutover", json={})
    config = (await stack.connection("test-device-123")).json()["brokerConfig"]
    assert config["clientCert"] == pem


async def test_a_replacement_that_does_not_fit_is_refused(stack: Stack) -> None:
    first, second, third = [await uploaded(stack, root()) for _ in range(3)]
    client = await uploaded(stack, LEAF + ISSUER, kind="client")
    path = f"/certificates/{first}/rotation"
    leaf = trustme.CA().issue_cert("d").cert_chain_pems[0].bytes().decode()
    for body, reason, field in (
        ({}, "INVALID_INPUT", "replacement"),
        ({"replacement_id": second, "replacement": {"pem": LEAF}}, "INVALID_INPUT", "replacement"),
        ({"replacement_id": first}, "INVALID_INPUT", "replacement"),
        ({"replacement_id": client}, "INVALID_INPUT", "replacement"),
        ({"replacement_id": 2_000_000_000}, "CERTIFICATE_UNKNOWN", "replacement_id"),
        ({"replacement": {"pem": leaf}}, "INVALID_INPUT", "replacement.pem"),
        ({"replacement": {"pem": LEAF, "name": "\0"}}, "INVALID_INPUT", "replacement.name"),
        ({"replacement_id": second, "threshold_percent": 101}, "INVALID_INPUT", None),
    ):
        refused = await stack.admin("POST", path, json=body)
        assert (refused.status_code, refused.json()["reason"]) == (422, reason), refused.text
        assert field in (None, refused.json()["field"])
    for method, below in (("POST", "/cutover"), ("DELETE", ""), ("GET", "/devices?told=old")):
        options: dict[str, Any] = {"json": {}} if method == "POST" else {}
        refused = await refusal(stack, method, path + below, **options)
        assert refused == (404, "ROTATION_NOT_FOUND", None)

    # Several certificates can get one replacement; one that is being replaced replaces no other.
    async def stage(old: int, new: int) -> int:
        body = {"replacement_id": new}
        staged = await stack.admin("POST", f"/certificates/{old}/rotation", json=body)
        assert staged.status_code == 201 or staged.json()["reason"] == "ROTATION_UNDER_WAY"
        return staged.status_code

    assert await stage(first, third) == await stage(second, third) == 201
    assert await stage(first, second) == 409
    assert await stage(third, first) == 409
    fourth = await uploaded(stack, root())
    assert await stage(third, fourth) == await stage(fourth, first) == 409
    # A certificate cannot be deleted while it is to replace another one.
    used = await refusal(stack, "DELETE", f"/certificates/{third}")
    assert used == (
        409,
        "CERTIFICATE_IN_USE",
        {"brokers": 0, "revisions": 0, "rotations": 2},
    )
