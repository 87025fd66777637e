"""Changes made by hand at a managed Mosquitto are repaired; and a plan that is interrupted."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_service.admission.reconciler.dynamic_security import LIMITS, Acl, acl_documents
from registry_service.admission.reconciler.first_fill import write
from registry_service.admission.reconciler.mosquitto_client import DynamicSecurity
from registry_service.admission.reconciler.planning import plan
from registry_service.errors import ControlNotAllowed, ControlUnreachable
from tests.broker_versions import Version
from tests.dynamic_security import (
    FLEET,
    A,
    B,
    DynamicMosquitto,
    brought_in_step,
    by_hand,
    device,
    filled,
    is_refused,
    kicked,
    may_subscribe,
    session,
)

pytestmark = pytest.mark.every_version("Mooring keeps its list of clients")

OWN, OTHERS = "mooring:client:a", "mooring:client:b"
EVERYTHING = acl_documents(
    frozenset(Acl(kind, "#") for kind in ("publishClientSend", "subscribePattern"))
)
BY_HAND: dict[str, list[tuple[str, dict[str, object]]]] = {
    "client deleted": [("deleteClient", {"username": "a"})],
    "role deleted": [("deleteRole", {"rolename": OWN})],
    "client and role deleted": [
        ("deleteClient", {"username": "a"}),
        ("deleteRole", {"rolename": OWN}),
    ],
    "role widened": [("modifyRole", {"rolename": OWN, "acls": EVERYTHING})],
    "role emptied": [("modifyRole", {"rolename": OWN, "acls": []})],
    "role removed from the client": [("removeClientRole", {"username": "a", "rolename": OWN})],
    "another's role given": [
        ("addClientRole", {"username": "a", "rolename": OTHERS, "priority": 5})
    ],
    "limits deleted": [("deleteRole", {"rolename": LIMITS})],
    "limits lifted": [("modifyRole", {"rolename": LIMITS, "acls": EVERYTHING})],
    "disabled": [("disableClient", {"username": "a"})],
    "bound to a client id": [("setClientId", {"username": "a", "clientid": "only-this"})],
    "mark removed": [("modifyClient", {"username": "a", "textname": ""})],
    "password and description changed": [
        ("modifyClient", {"username": "a", "textdescription": "mine", "password": "mine"})
    ],
    "in a group with all rights": [
        ("createRole", {"rolename": "all", "acls": EVERYTHING}),
        ("createGroup", {"groupname": "all", "roles": [{"rolename": "all"}]}),
        ("addGroupClient", {"groupname": "all", "username": "a"}),
    ],
    "a role of ours without a client": [("createRole", {"rolename": "mooring:client:x"})],
    "a client that claims to be ours": [
        ("createClient", {"username": "x", "password": "x", "textname": "mooring"})
    ],
}


@pytest.fixture
def broker(tmp_path: Path, mosquitto_version: Version) -> Iterator[DynamicMosquitto]:
    with DynamicMosquitto(tmp_path, filled(FLEET), version=mosquitto_version) as running:
        yield running


@pytest.mark.parametrize("what", BY_HAND)
async def test_changes_by_hand_are_repaired(broker: DynamicMosquitto, what: str) -> None:
    security = DynamicSecurity(broker.settings)
    before = await security.state()
    await by_hand(broker, *BY_HAND[what])
    assert (await brought_in_step(broker, FLEET)).commands
    after = await security.state()
    theirs = {"all": after.roles["all"]} if "all" in after.roles else {}
    assert (after.clients, after.roles) == (before.clients, {**before.roles, **theirs})
    async with session(broker, A) as client:
        assert await may_subscribe(client, "iot/device/a/#")
        assert not await may_subscribe(client, "iot/device/b/#")


async def test_deleting_the_role_of_a_client_made_by_commands_is_safe(
    broker: DynamicMosquitto,
) -> None:
    """If `createClient` had assigned the role, the plugin would use memory that it has freed."""
    fleet = [*FLEET, device("c")]
    await brought_in_step(broker, fleet)
    client = session(broker, device("c"))
    await client.__aenter__()
    async with kicked(client):
        await by_hand(
            broker,
            ("deleteRole", {"rolename": "mooring:client:c"}),
            ("createRole", {"rolename": "x" * 16, "acls": EVERYTHING}),
        )
    assert (await brought_in_step(broker, fleet)).changed == ("c",)
    async with session(broker, device("c")) as client:
        assert await may_subscribe(client, "iot/device/c/#")


async def test_clients_and_roles_of_others_are_not_changed(broker: DynamicMosquitto) -> None:
    bridge, claimed = device("bridge", "theirs"), device("claimed", "theirs")
    await by_hand(
        broker,
        ("createRole", {"rolename": "bridges", "acls": EVERYTHING}),
        ("createGroup", {"groupname": "bridges", "roles": [{"rolename": "bridges"}]}),
        ("createClient", {"username": "bridge", "password": "theirs", "textname": "Our bridge"}),
        ("addGroupClient", {"groupname": "bridges", "username": "bridge"}),
        ("createClient", {"username": "claimed", "password": "theirs"}),
        # This client has the rights of the device, as long as the device has them.
        ("createClient", {"username": "debug", "roles": [{"rolename": OWN}]}),
    )
    security = DynamicSecurity(broker.settings)
    before = await security.state()
    async with session(broker, bridge) as client:
        made = await brought_in_step(broker, [B, device("claimed", "ours")])
        assert (made.taken, made.removed) == (("claimed",), ("a", "observer"))
        # The bridge's connection has not ended either.
        assert await may_subscribe(client, "anything")
    await security.disable(["bridge", "claimed"])
    after = await security.state()
    for name in ("bridge", "claimed", "debug", "mooring-login"):
        assert after.clients[name] == before.clients[name]
    assert after.roles["bridges"] == before.roles["bridges"]
    # If the role were deleted, "debug" would have a role that does not exist: Mosquitto crashes.
    assert after.roles[OWN] == frozenset()
    assert not await is_refused(broker, claimed)
    assert not await is_refused(broker, bridge)


async def test_an_interrupted_plan_is_completed_later(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    fleet = [device(f"device-{n}") for n in range(150)]
    with DynamicMosquitto(tmp_path, version=mosquitto_version) as broker:
        security = DynamicSecurity(broker.settings)
        made = plan(fleet, await security.state())
        applying = asyncio.create_task(security.apply(made))
        while "device-1" not in (await security.state()).clients:
            assert not applying.done()
        broker.stop(signal.SIGTERM)
        with pytest.raises(ControlUnreachable):
            await applying
        with pytest.raises(ControlUnreachable):
            await security.state()
        broker.start()
        done = len((await security.state()).clients) - 1
        assert 0 < done < 150
        assert len((await brought_in_step(broker, fleet)).created) == 150 - done
        for one in (fleet[0], fleet[done], fleet[-1]):
            assert not await is_refused(broker, one)


async def test_a_damaged_file_is_written_again(broker: DynamicMosquitto) -> None:
    """Mosquitto 2.0.11 writes its file in place, so the file may be cut off."""
    security = DynamicSecurity(broker.settings)
    broker.stop(signal.SIGKILL)
    text = broker.file.read_text()
    broker.file.write_text(text[: len(text) // 2])
    broker.start()
    with pytest.raises(ControlNotAllowed):
        await security.state()
    assert await is_refused(broker, A)
    broker.stop()
    with pytest.raises(FileExistsError):
        write_anew(broker, replaces=False)
    write_anew(broker, replaces=True)
    assert broker.file.stat().st_mode & 0o777 == 0o600
    broker.start()
    assert not await is_refused(broker, A)


def write_anew(broker: DynamicMosquitto, *, replaces: bool) -> None:
    write(broker.file, filled(FLEET), replaces=replaces)
    assert [one.name for one in broker.folder.iterdir() if one.name.startswith(".")] == []
    assert json.loads(broker.file.read_text())
