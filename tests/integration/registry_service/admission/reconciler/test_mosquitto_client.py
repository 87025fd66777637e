"""The control topic of a real Mosquitto: permissions, answers, and missing answers."""

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.address_policy import UNRESTRICTED
from local.postgres import free_port
from registry_service.admission.reconciler.dynamic_security import (
    Acl,
    Actual,
    Command,
    acl_documents,
    role_of,
)
from registry_service.admission.reconciler.first_fill import CONTROL_ROLE
from registry_service.admission.reconciler.listings import PAGE
from registry_service.admission.reconciler.mosquitto_client import ControlSettings, DynamicSecurity
from registry_service.admission.reconciler.planning import Plan, plan
from registry_service.errors import (
    CommandsRefused,
    ControlNotAllowed,
    ControlSilent,
    ControlUnreachable,
)
from tests.broker_versions import Version
from tests.dynamic_security import (
    FLEET,
    PASSWORD,
    USERNAME,
    A,
    B,
    DynamicMosquitto,
    Filters,
    brought_in_step,
    device,
    filled,
    is_refused,
    password_of,
)
from tests.plugin_model import Plugin

pytestmark = pytest.mark.every_version("Mooring keeps its list of clients")


@pytest.fixture
def broker(tmp_path: Path, mosquitto_version: Version) -> Iterator[DynamicMosquitto]:
    with DynamicMosquitto(tmp_path, filled(FLEET), version=mosquitto_version) as running:
        yield running


async def test_lists_of_several_pages_are_read_completely(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    fleet = [device(f"device-{n}") for n in range(2 * PAGE - 1)]
    with DynamicMosquitto(tmp_path, filled(fleet), version=mosquitto_version) as broker:
        actual = await DynamicSecurity(broker.settings).state()
        # One list ends at the end of a page, the other just after it.
        assert (len(actual.clients), len(actual.roles)) == (2 * PAGE, 2 * PAGE + 1)
        assert plan(fleet, actual) == Plan()


async def test_concurrent_conversations_get_their_own_answers(broker: DynamicMosquitto) -> None:
    security = DynamicSecurity(broker.settings)
    fleets = [[device(f"{letter}-{n}") for n in range(60)] for letter in "xyz"]
    plans = [plan(fleet, Actual({}, {})) for fleet in fleets]
    created = [
        replace(made, commands=tuple(one for one in made.commands if one.about != "mooring:limits"))
        for made in plans
    ]
    outcomes = await asyncio.gather(
        *(security.apply(made) for made in created),
        *(security.state() for _ in range(5)),
        security.disable(["nobody"]),
        return_exceptions=True,
    )
    assert [one for one in outcomes if isinstance(one, Exception)] == []
    wanted = [*FLEET, *(one for fleet in fleets for one in fleet)]
    assert plan(wanted, await security.state()) == Plan()


async def test_any_username_works(broker: DynamicMosquitto) -> None:
    names = ("Zoë 中 \U0001f6a2", 'a "quoted" \\ one', "#", "+/%u/%c", "limits", "x" * 500, " ")
    fleet = [device(name, grants=Filters(("iot/x",), ("iot/x",))) for name in names]
    made = await brought_in_step(broker, [*FLEET, *fleet])
    assert set(made.created) == set(names)
    for one in fleet:
        assert not await is_refused(broker, one)
    assert set((await brought_in_step(broker, FLEET)).removed) == set(names)


async def test_the_other_commands_are_executed_when_some_are_refused(
    broker: DynamicMosquitto,
) -> None:
    security = DynamicSecurity(broker.settings)
    made = plan([*FLEET, device("c")], await security.state())
    wrong = Command("createClient", "a", {"username": "a", "password": "x"})
    unknown = Command("makeTea", "", {})
    gone = Command("deleteClient", "nobody", {"username": "nobody"})
    with pytest.raises(CommandsRefused, match="createClient a: Client already exists") as error:
        await security.apply(replace(made, commands=(wrong, unknown, gone, *made.commands)))
    assert error.value.usage == {"commands": 2}
    assert plan([*FLEET, device("c")], await security.state()) == Plan()


async def test_a_login_without_rights_on_the_topic_is_an_error_of_its_own(
    broker: DynamicMosquitto,
) -> None:
    for login in (
        replace(broker.settings, password="guessed"),
        replace(broker.settings, username="nobody"),
        # The first is a device; the second may use all other topics.
        replace(broker.settings, username="a", password=password_of(A)),
        replace(broker.settings, username="observer", password="the secret of observer"),
    ):
        with pytest.raises(ControlNotAllowed):
            await DynamicSecurity(login).state()
    await brought_in_step(
        broker, [*FLEET, device("reader", grants=Filters(subscribe=("$CONTROL/#",)))]
    )
    login = replace(broker.settings, username="reader", password="the secret of reader")
    with pytest.raises(ControlSilent, match="may not give it commands"):
        await DynamicSecurity(replace(login, answer_timeout_s=0.3)).state()


async def test_a_frozen_broker_is_given_up_in_time(broker: DynamicMosquitto) -> None:
    short = replace(broker.settings, answer_timeout_s=0.3, connect_timeout_s=0.3)
    security = DynamicSecurity(short)
    made = plan([A, B], await security.state())
    async with security._conversation() as conversation:
        broker.freeze()
        with pytest.raises(ControlSilent):
            await conversation.send(made.commands)
    began = time.monotonic()
    with pytest.raises(ControlUnreachable):
        await security.state()
    assert time.monotonic() - began < 5
    broker.thaw()
    # The broker has executed the commands after all.
    assert plan([A, B], await security.state()) == Plan()


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    nowhere = ControlSettings(
        *("127.0.0.1", free_port(), USERNAME, PASSWORD),
        connect_timeout_s=0.3,
        policy=UNRESTRICTED,
    )
    with socket.create_server(("127.0.0.1", 0)) as mute:
        there = replace(nowhere, port=mute.getsockname()[1])
        for one in (there, replace(there, use_tls=True), nowhere, replace(nowhere, host="..")):
            began = time.monotonic()
            with pytest.raises(ControlUnreachable):
                await DynamicSecurity(one).state()
            assert time.monotonic() - began < 5


async def test_over_tls_it_connects_only_to_the_right_server(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    authority = trustme.CA()
    ca, another = (one.cert_pem.bytes().decode() for one in (authority, trustme.CA()))
    with DynamicMosquitto(tmp_path, ca=authority, version=mosquitto_version) as broker:
        plain = replace(broker.settings, host="localhost")
        right = replace(plain, use_tls=True, ca_pem=ca)
        assert set((await DynamicSecurity(right).state()).clients) == {USERNAME}
        unchecked = replace(right, ca_pem=another, verify_certificate=False, host="127.0.0.1")
        assert set((await DynamicSecurity(unchecked).state()).clients) == {USERNAME}
        for wrong in (
            plain,
            replace(right, ca_pem=another),
            replace(right, ca_pem=None),
            replace(right, host="127.0.0.1"),
        ):
            with pytest.raises(ControlUnreachable):
                await DynamicSecurity(replace(wrong, connect_timeout_s=2)).state()
        with pytest.raises(ControlUnreachable, match="CA certificate"):
            DynamicSecurity(replace(right, ca_pem="none"))
    assert PASSWORD not in repr(right)


FORGOTTEN = [
    *(Command("deleteClient", name, {"username": name}) for name in ("a", "b", "c")),
    *(Command("deleteRole", name, {"rolename": role_of(name)}) for name in ("a", "b", "c")),
]
NAMES = st.sampled_from(("a", "b", "c"))
ROLES = NAMES.map(role_of)
ACLS = st.frozensets(
    st.builds(
        Acl,
        st.sampled_from(("publishClientSend", "subscribePattern")),
        st.sampled_from(("x/#", "y")),
        st.just(True),
        st.integers(0, 2),
    )
).map(lambda acls: acl_documents(frozenset({(one.kind, one.topic): one for one in acls}.values())))
HELD = st.lists(ROLES, unique=True, max_size=2).map(
    lambda roles: [{"rolename": role, "priority": 1} for role in roles]
)


def command(name: str, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Command]:
    return st.fixed_dictionaries(given).map(lambda arguments: Command(name, "", arguments))


COMMANDS = st.one_of(
    command("createRole", rolename=ROLES, acls=ACLS),
    command("modifyRole", rolename=ROLES, acls=ACLS),
    command("deleteRole", rolename=ROLES),
    command("createClient", username=NAMES, textname=NAMES, textdescription=NAMES, password=NAMES),
    command("modifyClient", username=NAMES, roles=HELD),
    command("modifyClient", username=NAMES, textdescription=NAMES, clientid=NAMES, password=NAMES),
    command("modifyClient", username=NAMES, clientid=st.just(""), textname=NAMES),
    command("disableClient", username=NAMES),
    command("enableClient", username=NAMES),
    command("deleteClient", username=NAMES),
)


async def test_the_model_of_the_plugin_behaves_like_the_plugin(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    with DynamicMosquitto(tmp_path, filled([]), version=mosquitto_version) as broker:
        await _compared(broker)


async def _compared(broker: DynamicMosquitto) -> None:
    security = DynamicSecurity(broker.settings)
    loop = asyncio.get_running_loop()

    async def compare(commands: list[Command]) -> None:
        async with security._conversation() as conversation:
            await conversation.ask([*FORGOTTEN])
        before = await security.state()
        assert (set(before.clients), set(before.roles)) == ({USERNAME}, {CONTROL_ROLE})
        model = Plugin(dict(before.clients), roles=dict(before.roles))
        async with security._conversation() as conversation:
            answers = await conversation.ask(commands)
        assert [answer.error for answer in answers] == model.run(commands)
        assert await security.state() == model.actual()
        for name, password in model.passwords.items():
            client = model.clients[name]
            right = device(name, password)
            is_shut = client.is_disabled
            assert await is_refused(broker, right, identifier=client.client_id or "x") == is_shut

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(COMMANDS, min_size=1, max_size=15))
    def check(commands: list[Command]) -> None:
        asyncio.run_coroutine_threadsafe(compare(commands), loop).result(timeout=60)

    await asyncio.to_thread(check)
