"""Plans for a Mosquitto's dynamic security plugin: their results, and what they never change."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.admission.reconciler.dynamic_security import (
    LIMITS,
    MARK,
    Acl,
    Actual,
    Client,
    Held,
    Wanted,
    acls_of,
    limits,
    role_of,
    roles_of,
)
from registry_service.admission.reconciler.planning import MAX_CLIENTS, Plan, plan
from registry_service.errors import TooManyClients, TooManyRemovals
from registry_service.password_hashes import PasswordHash
from tests.plugin_model import Plugin

NAMES = ("admin", "a", "b", "c", "d")
THEIRS = ("admin", "bridge", "debug")
GROUPS = ("friends", "readers")
ROLES = (LIMITS, *map(role_of, NAMES), *THEIRS)
HASH = PasswordHash("mosquitto_pbkdf2", "$7$101$c2FsdHNhbHRzYWx0$" + "aA" * 43 + "==")


@dataclass(frozen=True)
class Filters:
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


def device(name: str, word: str = "1", grants: Filters | None = None) -> Wanted:
    topics = (f"iot/device/{name}/#",)
    return Wanted(name, lambda: word, f"made of {word}", grants or Filters(topics, topics))


def filled(wanted: Iterable[Wanted]) -> Plugin:
    plugin = Plugin()
    plugin.run(plan(wanted, plugin.actual()).commands)
    return plugin


FILTERS = st.lists(st.sampled_from(("a/#", "a/b", "+/c", "#", "$SYS/#")), max_size=3).map(tuple)
GRANTS = st.builds(Filters, FILTERS, FILTERS)
WANTED = st.builds(device, st.sampled_from(NAMES), st.sampled_from("12"), GRANTS)
FLEETS = st.lists(WANTED, unique_by=lambda one: one.username)
ACLS = st.frozensets(st.sampled_from((*limits(), *acls_of(Filters(("a/#",), ("a/#",))))))


@st.composite
def plugins(draw: st.DrawFn) -> Plugin:
    """Clients of Mooring and of others: complete, incomplete and changed by others."""
    plugin = filled(draw(FLEETS))
    for name in draw(st.sets(st.sampled_from(ROLES))):
        plugin.roles[name] = draw(ACLS)
    for name in draw(st.sets(st.sampled_from(GROUPS))):
        plugin.groups[name] = draw(st.frozensets(st.sampled_from(sorted(plugin.roles) or [LIMITS])))
    plugin.groups = {
        name: frozenset(roles & plugin.roles.keys()) for name, roles in plugin.groups.items()
    }
    for name in draw(st.sets(st.sampled_from((*NAMES, *THEIRS)))):
        held = draw(st.sets(st.sampled_from(sorted(plugin.roles)))) if plugin.roles else set()
        before = plugin.clients.get(name, Client(name))
        plugin.clients[name] = Client(
            name,
            draw(st.sampled_from((before.name, "", "Somebody's"))),
            draw(st.sampled_from((before.description, "", "Do not touch"))),
            draw(st.sampled_from(("", "only-this-one"))),
            draw(st.booleans()),
            before.roles | {Held(role, draw(st.integers(-1, 2))) for role in held},
            draw(st.frozensets(st.sampled_from(sorted(plugin.groups))))
            if plugin.groups
            else before.groups,
        )
        plugin.unknown |= {(name, role) for role in held if draw(st.booleans())}
        plugin.passwords.setdefault(name, "theirs")
    return plugin


def password_of(one: Wanted) -> str:
    assert not isinstance(one.password, PasswordHash)
    return one.password()


def made_by(made: Plan) -> set[str]:
    return {command.about for command in made.commands if command.name == "createClient"}


def carried_out(wanted: Iterable[Wanted], plugin: Plugin) -> Plan:
    made = plan(wanted, plugin.actual())
    assert not any(plugin.run(made.commands))
    return made


@given(FLEETS, plugins())
def test_a_plan_reaches_the_wanted_state_and_keeps_objects_of_others(
    fleet: list[Wanted], plugin: Plugin
) -> None:
    before = plugin.copy()
    made = carried_out(fleet, plugin)
    theirs = {name: one for name, one in before.clients.items() if not one.is_ours}
    admitted = {one.username: one for one in fleet if one.username not in theirs}
    assert set(made.taken) == {one.username for one in fleet} & theirs.keys()

    # Clients of others are unchanged, except for roles of Mooring that no longer exist.
    assert {name: plugin.clients[name] for name in theirs} == theirs
    assert all(plugin.passwords[name] == before.passwords[name] for name in theirs)
    assert plugin.clients.keys() == theirs.keys() | admitted.keys()
    for name, one in admitted.items():
        assert plugin.clients[name] == Client(
            name, MARK, one.description, "", False, roles_of(name), frozenset()
        )
        assert plugin.passwords[name] == password_of(one)
        assert plugin.roles[role_of(name)] == acls_of(one.grants)

    # The roles are exactly the needed ones; others' are unchanged; roles of Mooring that others
    # hold are empty.
    assert not admitted or plugin.roles[LIMITS] == limits()
    needed = {role_of(name) for name in admitted} | ({LIMITS} if admitted else set())
    for name, acls in plugin.roles.items():
        if name not in needed:
            assert acls == (before.roles[name] if not name.startswith("mooring:") else frozenset())
    assert {name for name in before.roles if not name.startswith("mooring:")} <= plugin.roles.keys()
    assert plugin.groups.keys() == before.groups.keys()

    assert plan(fleet, plugin.actual()).commands == ()
    # Every role of Mooring has its holders recorded, so that it can be deleted safely.
    assert not {name for name, _ in plugin.unknown if plugin.clients[name].is_ours} & made_by(made)


@given(FLEETS, plugins(), st.data())
def test_an_interrupted_plan_can_be_continued(
    fleet: list[Wanted], plugin: Plugin, data: st.DataObject
) -> None:
    whole, interrupted = plugin.copy(), plugin.copy()
    commands = carried_out(fleet, whole).commands
    done = data.draw(st.integers(0, len(commands)))
    assert not any(interrupted.run(commands[:done]))
    carried_out(fleet, interrupted)
    assert (interrupted.actual(), interrupted.passwords) == (whole.actual(), whole.passwords)


@given(FLEETS, FLEETS)
def test_removals_come_first(before: list[Wanted], after: list[Wanted]) -> None:
    made = plan(after, filled(before).actual())
    names = [command.name for command in made.commands]
    assert names[: len(made.removed)] == ["deleteClient"] * len(made.removed)
    assert "deleteClient" not in names[len(made.removed) :]


def test_there_are_no_commands_for_clients_in_step() -> None:
    fleet = [device(f"d{n}") for n in range(5)]
    changed = [*fleet[:4], device("d4", "2")]
    made = plan(changed, filled(fleet).actual())
    assert [(one.name, one.about) for one in made.commands] == [("modifyClient", "d4")]
    assert (made.changed, made.created, made.removed) == (("d4",), (), ())


def test_a_password_is_derived_only_if_it_is_set() -> None:
    def never() -> str:
        pytest.fail("it was asked for")

    fleet = [device("a"), device("b")]
    plugin = filled(fleet)
    wanted = [
        replace(fleet[0], password=never),
        replace(fleet[1], password=lambda: "2", fingerprint="2"),
    ]
    assert not any(plugin.run(plan(wanted, plugin.actual()).commands))
    assert plugin.passwords == {"a": "1", "b": "2"}


def test_a_password_is_shown_nowhere() -> None:
    made = plan([device("a", "swordfish")], Actual({}, {}))
    assert made.created == ("a",)
    assert "swordfish" not in repr(made)
    assert "swordfish" not in repr(device("a", "swordfish")).replace("made of swordfish", "")


def test_a_password_with_only_a_hash_is_kept() -> None:
    known, hashed = device("a"), replace(device("b"), password=HASH, fingerprint="hash")
    plugin = filled([known, replace(device("b", "theirs"), fingerprint="hash")])
    assert plan([known, hashed], plugin.actual()) == Plan()
    # Another client has no hash, and no old password is kept for it.
    assert plan([known, hashed], filled([known]).actual()).impossible == ("b",)
    made = plan([known, replace(hashed, fingerprint="another")], plugin.actual())
    assert (made.removed, made.impossible) == (("b",), ("b",))


@pytest.mark.parametrize(
    ("before", "after", "is_refused"),
    [
        (10, 0, False),
        (11, 0, True),
        (11, 1, False),
        (50, 39, True),
        (60, 48, False),
        (60, 47, True),
        (1_000, 800, False),
        (1_000, 799, True),
        (1_000, 0, True),
    ],
)
def test_clients_of_a_vanished_fleet_are_not_removed(
    before: int, after: int, is_refused: bool
) -> None:
    plugin = filled(device(f"d{n}") for n in range(before))
    wanted = [*(device(f"d{n}") for n in range(after)), device("new")]
    made = plan(wanted, plugin.actual())
    refusals = [(type(one), one.usage) for one in made.refusals]
    removals = before - after
    if not is_refused:
        assert (len(made.removed), refusals) == (removals, [])
        return
    assert refusals == [(TooManyRemovals, {"removals": removals, "clients": before})]
    # New clients are added all the same, and no role is taken away.
    assert (made.removed, made.created) == ((), ("new",))
    assert not any(plugin.run(made.commands))
    assert len(plugin.clients) == before + 1
    assert all(role_of(name) in plugin.roles for name in plugin.clients)
    assert plan(wanted, plugin.actual()).commands == ()


def test_intended_removals_are_carried_out() -> None:
    fleet = [device(f"d{n:03}") for n in range(200)]
    plugin = filled(fleet)
    meant = tuple(f"d{n:03}" for n in range(100))
    made = plan(fleet[100:], plugin.actual(), confirmed=meant)
    assert (made.removed, made.refusals) == (meant, ())
    # Other clients are not removed with them.
    made = plan([], plugin.actual(), confirmed=meant)
    assert made.removed == meant
    assert [one.usage for one in made.refusals] == [{"removals": 100, "clients": 200}]


def test_too_many_clients_are_not_added_but_existing_ones_stay_in_step() -> None:
    fleet = [device(f"d{n}") for n in range(MAX_CLIENTS)]
    plugin = filled(fleet[:9])
    assert len(plan(fleet, plugin.actual()).created) == MAX_CLIENTS - 9
    crowd = [device("d0", "2"), *fleet[2:], device("x"), device("y")]
    made = plan(crowd, plugin.actual())
    assert [(type(one), one.usage) for one in made.refusals] == [
        (TooManyClients, {"wanted": MAX_CLIENTS + 1, "most": MAX_CLIENTS})
    ]
    assert "mosquitto-go-auth" in made.refusals[0].message
    assert (made.removed, made.changed, made.created) == (("d1",), ("d0",), ())


@given(GRANTS)
def test_a_role_has_no_line_twice(grants: Filters) -> None:
    lines = [(acl.kind, acl.topic) for acl in acls_of(grants)]
    assert len(lines) == len(set(lines))


def test_topics_that_mqtt_hides_from_wildcards_are_denied() -> None:
    denied = {acl.topic for acl in acls_of(Filters(subscribe=("#",))) if not acl.is_allowed}
    assert denied == {"$SYS/#", "$CONTROL/#", "$share/+/$SYS/#", "$share/+/$CONTROL/#"}
    assert Acl("subscribePattern", "$SYS/#") in acls_of(Filters(subscribe=("#", "$SYS/#")))
    assert all(acl.is_allowed for acl in acls_of(Filters(subscribe=("iot/#", "iot/+"))))
