"""A device's password is rotated by the device, or revoked by an administrator."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mooring.registry.v1 import devices_pb2, devices_pb2_grpc, registration_pb2

from chassis.errors import Forbidden
from chassis.trust import Access, Actor
from registry_service.credentials import hash_of_password
from tests.integration.registry_service.administration.test_fleet_access import imported, refusal
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.proxy import Cut, proxied
from tests.stack import Peer, Stack

KEPT = """
SELECT mqtt_password_hash, credential_salt, previous_password_hash, previous_salt, previous_until
FROM devices WHERE uuid = 'd'
"""


async def rotate(stack: Stack, uuid: str = "d", api_key: str = "test-api-key") -> Any:
    return await stack.http.post(
        f"/api/v1/device/{uuid}/credentials/rotate",
        headers={"Authorization": f"Bearer {api_key}"},
    )


async def rotated(peer: Peer, *uuids: str) -> list[str]:
    """For each device the password of the answer, or the reason of its error."""
    request = registration_pb2.RotateCredentialsRequest(
        requests=[
            registration_pb2.ConnectionRequest(uuid=uuid, device_api_key="test-api-key")
            for uuid in uuids
        ]
    )
    response = await peer.registration("RotateCredentials", request)
    return [outcome.connection.password or outcome.error.reason for outcome in response.outcomes]


async def password(stack: Stack, uuid: str = "d") -> str:
    answer = await stack.connection(uuid)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["password"])


def accepted(stack: Stack, password: str) -> str:
    """How a broker that asks would accept the password now; "" if it would not."""
    [(current, salt, previous, previous_salt, until)] = stack.database.execute(KEPT)
    if hash_of_password(salt, password) == current:
        return "current"
    if previous is not None and hash_of_password(previous_salt, password) == previous:
        return "previous" if until > datetime.now(UTC) else "late"
    return ""


async def test_a_device_gets_a_new_password_and_the_one_before_is_accepted_for_an_hour(
    stack: Stack,
) -> None:
    first = (await stack.register("d")).json()["mqtt"]
    tag = (await stack.connection("d")).headers["etag"]
    answer = await rotate(stack)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    second = answer.json()
    assert set(second) == set(first)
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"password", "generation"}
    assert accepted(stack, second["password"]) == "current"
    assert accepted(stack, first["password"]) == "previous"
    [(_, _, _, _, until)] = stack.database.execute(KEPT)
    assert timedelta(minutes=59) < until - datetime.now(UTC) < timedelta(minutes=61)
    [(username, known)] = stack.database.execute("SELECT username, password_hash FROM mqtt_users")
    assert username == "device_d"
    assert known == stack.database.execute(KEPT)[0][0]

    # If the answer is lost, the device gets the same one by asking again.
    asked = await stack.connection("d", **{"If-None-Match": tag})
    assert (asked.status_code, asked.json()) == (200, second)
    assert (await stack.register("d")).json()["mqtt"] == second
    third = (await rotate(stack)).json()["password"]
    assert accepted(stack, third) == "current"
    assert accepted(stack, second["password"]) == "previous"
    assert accepted(stack, first["password"]) == ""

    lines = (await stack.admin("GET", "/audit-log?action=device.rotate_credentials")).json()
    assert [(line["actor"], line["actor_id"], line["subject"]) for line in lines["items"]] == [
        ("device", "d", "d")
    ]


async def test_a_device_that_is_refused_rotates_nothing(stack: Stack) -> None:
    await stack.register("d")
    await imported(stack, "old")
    before = stack.database.execute(KEPT)
    assert refusal(await rotate(stack, api_key="another-key")) == (401, "DEVICE_UNAUTHENTICATED")
    assert refusal(await rotate(stack, "nobody")) == (401, "DEVICE_UNAUTHENTICATED")
    assert refusal(await rotate(stack, "old")) == (401, "DEVICE_UNAUTHENTICATED")
    path = "/api/v1/device/d/credentials/rotate"
    assert refusal(await stack.http.post(path)) == (401, "UNAUTHENTICATED")
    got = await stack.http.get(path)
    assert refusal(got) == (405, "METHOD_NOT_ALLOWED")
    assert got.headers["allow"] == "POST"
    assert (await stack.http.post("/api/v1/device/d%2f/credentials/rotate")).status_code == 404
    await stack.admin("PATCH", "/devices/d", json={"is_active": False})
    assert refusal(await rotate(stack)) == (403, "DEVICE_DISABLED")
    await stack.admin("PATCH", "/devices/d", json={"is_active": True})
    await stack.admin("PATCH", "/fleets/demo", json={"is_active": False})
    assert refusal(await rotate(stack)) == (403, "DEVICE_DISABLED")
    assert stack.database.execute(KEPT) == before
    # One refused device does not affect the others of its batch.
    await stack.admin("PATCH", "/fleets/demo", json={"is_active": True})
    one, other = await rotated(stack.registry, "nobody", "d")
    assert (one, other) == ("DEVICE_UNAUTHENTICATED", await password(stack))
    many = registration_pb2.RotateCredentialsRequest(
        requests=[registration_pb2.ConnectionRequest()] * 1_001
    )
    with pytest.raises(Exception, match="at most 1000"):
        await stack.registry.registration("RotateCredentials", many)


async def test_without_a_grace_the_password_before_ends_at_once(stack: Stack) -> None:
    first = (await stack.register("d")).json()["mqtt"]["password"]
    hasty = await stack.another_registry(previous_password_s=0)
    [second] = await rotated(hasty, "d")
    assert (accepted(stack, first), accepted(stack, second)) == ("", "current")
    assert stack.database.execute(KEPT)[0][2:] == (None, None, None)
    brief = await stack.another_registry(previous_password_s=0.001)
    [third] = await rotated(brief, "d")
    assert (accepted(stack, second), accepted(stack, third)) == ("late", "current")


async def test_concurrent_rotations_are_one_rotation(stack: Stack) -> None:
    first = (await stack.register("d")).json()["mqtt"]["password"]
    one, other = await rotated(stack.registry, "d", "d")
    assert one == other
    assert (accepted(stack, first), accepted(stack, one)) == ("previous", "current")
    second = await stack.another_registry()
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        tasks = [
            asyncio.create_task(rotated(registry, "d")) for registry in (stack.registry, second)
        ]
        await waiting(stack, 2)
        connection.commit()
    [[left], [right]] = await asyncio.gather(*tasks)
    assert left == right
    assert (accepted(stack, one), accepted(stack, left)) == ("previous", "current")
    assert stack.database.execute("SELECT rotations FROM devices") == [(2,)]


async def test_answered_passwords_are_accepted_during_rotations(stack: Stack) -> None:
    await stack.register("d")
    other = await stack.another_registry()

    async def ask(n: int) -> str:
        if n % 3 == 0:
            return str((await stack.register("d")).json()["mqtt"]["password"])
        if n % 3 == 1:
            return await password(stack)
        [answered] = await rotated(other if n % 2 else stack.registry, "d")
        return answered

    for n in range(12):
        # Two rotations, one at each registry, and other requests at the same time.
        answers = await asyncio.gather(*(ask(12 * n + k) for k in range(6)))
        current = await password(stack)
        assert accepted(stack, current) == "current"
        assert current in answers
        # A password from before both rotations is accepted only if they were one rotation.
        unknown = [answer for answer in answers if not accepted(stack, answer)]
        assert len(set(answers)) <= 3
        assert len(set(unknown)) <= 1


async def test_a_registration_during_a_rotation_gets_a_password_that_is_accepted(
    stack: Stack,
) -> None:
    first = (await stack.register("d")).json()["mqtt"]["password"]
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        rotating = asyncio.create_task(rotate(stack))
        await waiting(stack, 1)
        answered = (await stack.register("d")).json()["mqtt"]["password"]
        connection.commit()
    second = (await rotating).json()["password"]
    assert answered == first
    assert (accepted(stack, answered), accepted(stack, second)) == ("previous", "current")
    assert (await stack.register("d")).json()["mqtt"]["password"] == second


@pytest.mark.parametrize("is_renewed_first", [False, True])
async def test_a_rotation_with_the_old_api_key_ends_when_a_device_is_provisioned_anew(
    stack: Stack, is_renewed_first: bool
) -> None:
    for _ in range(2):
        first = (await stack.register("d")).json()["mqtt"]["password"]
    await stack.admin("PATCH", "/devices/d", json={"reprovisioning_allowed": True})
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")

        async def begun(work: Any, sessions: int) -> asyncio.Task[Any]:
            task = asyncio.create_task(work)
            await waiting(stack, sessions)
            return task

        if is_renewed_first:
            renewing = await begun(stack.register("d", deviceApiKey="another-key"), 1)
            rotating = await begun(rotate(stack), 2)
        else:
            rotating = await begun(rotate(stack), 1)
            renewing = await begun(stack.register("d", deviceApiKey="another-key"), 2)
        connection.commit()
    renewed, answer = await renewing, await rotating
    assert renewed.status_code == 200
    new = renewed.json()["mqtt"]["password"]
    if is_renewed_first:
        assert refusal(answer) == (401, "DEVICE_UNAUTHENTICATED")
    else:
        assert accepted(stack, answer.json()["password"]) == ""
    assert (accepted(stack, first), accepted(stack, new)) == ("", "current")
    assert stack.database.execute(KEPT)[0][2:] == (None, None, None)
    assert refusal(await stack.connection("d")) == (401, "DEVICE_UNAUTHENTICATED")


async def test_an_administrator_revokes_a_password_and_the_device_gets_another(
    stack: Stack,
) -> None:
    first = (await stack.register("d")).json()["mqtt"]
    second = (await rotate(stack)).json()["password"]
    path = "/devices/d/credentials/revoke"
    assert (await stack.admin("POST", path)).status_code == 204
    for known in (first["password"], second):
        assert accepted(stack, known) == ""
    assert stack.database.execute(KEPT)[0][2:] == (None, None, None)
    assert stack.database.execute("SELECT * FROM mqtt_users") == []
    asked = await stack.connection("d")
    third = asked.json()["password"]
    assert accepted(stack, third) == "current"
    assert stack.database.execute(KEPT)[0][2:] == (None, None, None)
    assert await password(stack) == third
    assert len(stack.database.execute("SELECT * FROM mqtt_users")) == 1

    # Registering gives it a new password too, and it is not a new device.
    assert (await stack.admin("POST", path)).status_code == 204
    again = await stack.register("d")
    assert again.status_code == 200
    assert accepted(stack, third) == ""
    assert accepted(stack, again.json()["mqtt"]["password"]) == "current"
    # Rotating does as well; twice in one batch gives one password.
    assert (await stack.admin("POST", path)).status_code == 204
    one, other = await rotated(stack.registry, "d", "d")
    assert one == other == await password(stack)

    assert refusal(await stack.admin("POST", "/devices/nobody/credentials/revoke")) == (
        404,
        "DEVICE_NOT_FOUND",
    )
    lines = (await stack.admin("GET", "/audit-log?action=device.revoke_credentials")).json()
    assert [(line["actor"], line["subject"], line["refusal"]) for line in lines["items"]][-3:] == [
        ("tests", "d", None)
    ] * 3


async def test_concurrent_requests_after_a_revocation_get_the_same_password(stack: Stack) -> None:
    await stack.register("d")
    await stack.admin("POST", "/devices/d/credentials/revoke")
    other = await stack.another_registry()
    request = registration_pb2.GetConnectionsRequest(
        requests=[registration_pb2.ConnectionRequest(uuid="d", device_api_key="test-api-key")] * 2
    )
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        asking = [
            asyncio.create_task(registry.registration("GetConnections", request))
            for registry in (stack.registry, other)
        ]
        registering = asyncio.create_task(stack.register("d"))
        await waiting(stack, 3)
        connection.commit()
    answers = await asyncio.gather(*asking)
    found = {outcome.connection.password for answer in answers for outcome in answer.outcomes}
    found.add((await registering).json()["mqtt"]["password"])
    assert found == {await password(stack)}


async def test_an_imported_password_is_revoked_too(stack: Stack) -> None:
    await imported(stack, "d")
    assert stack.database.execute("SELECT username FROM mqtt_users") == [("d",)]
    assert (await stack.admin("POST", "/devices/d/credentials/revoke")).status_code == 204
    assert stack.database.execute("SELECT username FROM mqtt_users") == []
    answer = await stack.register("d")
    assert accepted(stack, answer.json()["mqtt"]["password"]) == "current"


@pytest.mark.parametrize("is_revoked_first", [False, True])
async def test_a_rotation_during_a_revocation_keeps_no_old_password(
    stack: Stack, is_revoked_first: bool
) -> None:
    first = (await stack.register("d")).json()["mqtt"]["password"]
    with owned(stack) as connection:
        connection.execute("SELECT 1 FROM devices FOR UPDATE")
        revoke = stack.admin("POST", "/devices/d/credentials/revoke")
        tasks = []
        for n, work in enumerate((revoke, rotate(stack))[:: 1 if is_revoked_first else -1]):
            tasks.append(asyncio.create_task(work))
            await waiting(stack, n + 1)
        connection.commit()
    answers = await asyncio.gather(*tasks)
    assert sorted(answer.status_code for answer in answers) == [200, 204]
    new = answers[1 if is_revoked_first else 0].json()["password"]
    assert accepted(stack, first) == ""
    assert accepted(stack, new) == ("current" if is_revoked_first else "")
    assert accepted(stack, await password(stack)) == "current"


async def test_a_restricted_token_revokes_passwords_of_its_own_devices_only(stack: Stack) -> None:
    made = await stack.admin(
        "POST", "/tokens", json={"name": "t", "role": "operator", "fleet_ids": ["demo"]}
    )
    await stack.create_fleet("other")
    await stack.register("theirs", key=await stack.create_key(fleet_id="other"))
    await stack.register("d")
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    for uuid, status in (("d", 204), ("theirs", 404)):
        path = f"/api/v1/devices/{uuid}/credentials/revoke"
        assert (await stack.http.post(path, headers=headers)).status_code == status
    with pytest.raises(Forbidden):
        await stack.registry.ask(
            devices_pb2_grpc.DeviceServiceStub,
            "RevokeCredentials",
            devices_pb2.RevokeCredentialsRequest(uuid="d"),
            actor=Actor("v", Access.VIEWER),
        )


async def test_a_revocation_ends_sessions_and_a_rotation_does_not(stack: Stack) -> None:
    stack.database.execute(
        "UPDATE mqtt_broker_config SET management = 'mosquitto', username = 'u',"
        " password_encrypted = '\\x00'"
    )
    await stack.register("d")
    revocations = "SELECT username, reason FROM revocations ORDER BY id"
    await rotate(stack)
    assert stack.database.execute(revocations) == []
    await stack.admin("POST", "/devices/d/credentials/revoke")
    assert stack.database.execute(revocations) == [("device_d", "rotated")]


@pytest.mark.parametrize("cut", list(Cut))
async def test_a_rotation_with_an_unknown_commit_is_one_rotation(stack: Stack, cut: Cut) -> None:
    first = (await stack.register("d")).json()["mqtt"]["password"]
    async with proxied(stack.database.url("mooring_registry")) as (proxy, url):
        registry = await stack.another_registry(database_url=url)
        proxy.cuts = [cut]
        [second] = await rotated(registry, "d")
        assert proxy.made == 1
    assert (accepted(stack, first), accepted(stack, second)) == ("previous", "current")


async def test_many_devices_rotate_at_once(stack: Stack) -> None:
    uuids = [f"d{n}" for n in range(60)]
    before = {
        answer.json()["uuid"]: answer.json()["mqtt"]["password"]
        for answer in await asyncio.gather(*(stack.register(uuid) for uuid in uuids))
    }
    answers = await asyncio.gather(*(rotate(stack, uuid) for uuid in uuids))
    after = {uuid: answer.json()["password"] for uuid, answer in zip(uuids, answers, strict=True)}
    assert {answer.json()["username"] for answer in answers} == {f"device_{u}" for u in uuids}
    assert not {before[uuid] for uuid in uuids} & set(after.values())
    rows = stack.database.execute("SELECT uuid, mqtt_password_hash, credential_salt FROM devices")
    for uuid, kept, salt in rows:
        assert hash_of_password(salt, after[uuid]) == kept
