"""The connections of one client id by notices in any order, against a model of a broker."""

from dataclasses import dataclass

import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from msgspec import structs

from registry_service.admission.listener.matching import REPLACED_S
from registry_service.admission.listener.sessions import ENDED_S, Sessions
from registry_service.admission.questions import Notice

BROKER, CLIENT, USER = 1, "c", "device_a"
# The loop's clock, and the wall clock in ms when that is 0.
EPOCH_MS = 1_700_000_000_000


@dataclass
class Session:
    """A session at the broker: ms since `EPOCH_MS`, by one common clock."""

    began: int
    # None while it is connected.
    ended: int | None
    is_replaced: bool
    # The difference between the clock of its node and the common clock.
    skew: int


@dataclass
class Step:
    """A question or notice that this process gets at some time."""

    at: int
    index: int
    kind: str


@st.composite
def histories(draw: st.DrawFn, *, skew_ms: int) -> list[Session]:
    """Sessions of one client: each ends by itself, or when the next one begins, or not at all."""
    sessions: list[Session] = []
    now = 10_000
    for _ in range(draw(st.integers(1, 4))):
        if sessions and sessions[-1].ended is None:
            sessions[-1].ended = now + draw(st.integers(0, 5))
            sessions[-1].is_replaced = True
        began = now
        now += draw(st.integers(10, 90_000))
        ended = now if draw(st.booleans()) else None
        now += draw(st.integers(1, 5_000))
        skew = draw(st.integers(-skew_ms, skew_ms))
        sessions.append(Session(began, ended, is_replaced=False, skew=skew))
    return sessions


def steps_of(data: st.DataObject, sessions: list[Session], *, are_missing: bool) -> list[Step]:
    """A broker asks before it connects a client; its notices may be late, repeated or lost."""
    steps = []
    for index, session in enumerate(sessions):
        steps.append(Step(session.began - 5, index, "asked"))
        for kind, at in (("came", session.began), ("left", session.ended)):
            if at is None:
                continue
            copies = st.lists(st.integers(0, 120_000), min_size=0 if are_missing else 1, max_size=2)
            steps += [Step(at + late, index, kind) for late in data.draw(copies)]
    order = data.draw(st.permutations(range(len(steps))))
    return [steps[index] for index in sorted(order, key=lambda index: steps[index].at)]


def notice_of(step: Step, session: Session, says: frozenset[str]) -> Notice:
    peer = f"192.0.2.1:{40_000 + step.index}" if "peer" in says else ""
    began_at = EPOCH_MS + session.began + session.skew
    if step.kind == "came":
        return Notice(USER, CLIENT, True, peer=peer, began_at=began_at)
    assert session.ended is not None
    return Notice(
        USER,
        CLIENT,
        False,
        is_replaced=session.is_replaced,
        peer=peer,
        began_at=began_at if "began" in says else 0,
        ended_at=EPOCH_MS + session.ended + session.skew,
    )


def outcome(sessions: list[Session], steps: list[Step], says: frozenset[str]) -> tuple[bool, str]:
    """Whether the user is online by the last change, and which user has the client id."""
    ids, is_online = Sessions(), False
    for step in steps:
        now = step.at / 1000
        if step.kind == "asked":
            assert not ids.is_anothers(BROKER, CLIENT, USER, now)
            ids.begin(BROKER, CLIENT, USER, now)
            continue
        notice = notice_of(step, sessions[step.index], says)
        for standing in ids.note(BROKER, notice, now, EPOCH_MS + step.at):
            assert standing.username == USER
            if standing.is_online is not None:
                is_online = standing.is_online
    return is_online, ids.user_of(BROKER, CLIENT, steps[-1].at / 1000)


SAYS = [frozenset({"peer"}), frozenset({"peer", "began"}), frozenset({"began"})]


@pytest.mark.parametrize("says", SAYS, ids=lambda says: "+".join(sorted(says)))
@settings(max_examples=300)
@given(sessions=histories(skew_ms=5_000), data=st.data())
def test_in_any_order_and_with_skewed_clocks_the_state_is_that_of_the_broker(
    says: frozenset[str], sessions: list[Session], data: st.DataObject
) -> None:
    steps = steps_of(data, sessions, are_missing=False)
    is_connected = sessions[-1].ended is None
    assume(len({session.began + session.skew for session in sessions}) == len(sessions))
    note(f"{sessions}\n{steps}")
    is_online, owner = outcome(sessions, steps, says)
    # With different clocks and reordered notices, the client id may stay the client's.
    if is_connected or not any(session.skew for session in sessions):
        assert is_online is is_connected
        assert owner == (USER if is_connected else "")


@pytest.mark.parametrize("says", [*SAYS, frozenset()], ids=lambda says: "+".join(sorted(says)))
@settings(max_examples=300)
@given(sessions=histories(skew_ms=0), data=st.data())
def test_with_lost_notices_a_live_connection_keeps_its_client_id(
    says: frozenset[str], sessions: list[Session], data: st.DataObject
) -> None:
    sessions[-1].ended, sessions[-1].is_replaced = None, False
    steps = steps_of(data, sessions, are_missing=True)
    note(f"{sessions}\n{steps}")
    is_online, owner = outcome(sessions, steps, says)
    assert owner == USER
    if any(step.kind == "came" and step.index == len(sessions) - 1 for step in steps):
        assert is_online


LATE = [
    # The first client's notice arrives when only the last one is awaited.
    (
        frozenset({"peer", "began"}),
        [
            Session(10_000, 10_011, is_replaced=True, skew=0),
            Session(10_011, 10_022, is_replaced=True, skew=0),
            Session(10_022, 20_018, is_replaced=False, skew=0),
            Session(20_019, None, is_replaced=False, skew=0),
        ],
        [
            *(Step(9_995, 0, "asked"), Step(10_006, 1, "asked"), Step(10_011, 0, "left")),
            *(Step(10_017, 2, "asked"), Step(20_014, 3, "asked"), Step(20_018, 2, "left")),
            Step(20_019, 0, "came"),
        ],
    ),
    (
        frozenset({"peer"}),
        [
            Session(10_000, 10_010, is_replaced=False, skew=0),
            Session(10_011, 15_001, is_replaced=False, skew=0),
            Session(20_001, 29_997, is_replaced=False, skew=0),
            Session(29_998, None, is_replaced=False, skew=0),
        ],
        [
            *(Step(9_995, 0, "asked"), Step(10_006, 1, "asked"), Step(19_996, 2, "asked")),
            *(Step(29_993, 3, "asked"), Step(29_997, 2, "left"), Step(29_998, 0, "came")),
            Step(29_998, 2, "came"),
        ],
    ),
]


@pytest.mark.parametrize(("says", "sessions", "steps"), LATE)
def test_a_late_notice_is_not_about_a_client_that_was_accepted_after_it(
    says: frozenset[str], sessions: list[Session], steps: list[Step]
) -> None:
    _, owner = outcome(sessions, steps, says)
    assert owner == USER


@settings(max_examples=300)
@given(sessions=histories(skew_ms=0), data=st.data())
def test_times_alone_suffice_if_all_clocks_agree(
    sessions: list[Session], data: st.DataObject
) -> None:
    steps = steps_of(data, sessions, are_missing=False)
    assert outcome(sessions, steps, frozenset())[0] is (sessions[-1].ended is None)


def verne(ids: Sessions, now: float, said: str, port: int = 0) -> bool | None:
    """A notice of VerneMQ: it has an address when a client connects, and none when it leaves."""
    if said == "asked":
        assert not ids.is_anothers(BROKER, CLIENT, USER, now)
        ids.begin(BROKER, CLIENT, USER, now, f"192.0.2.1:{port}")
        return None
    username = USER if said == "came" else ""
    peer = f"192.0.2.1:{port}" if said == "came" else ""
    is_online = said in ("came", "woke")
    notice = Notice(username, CLIENT, is_online, is_kept=said == "offline", peer=peer)
    [standing] = ids.note(BROKER, notice, now, EPOCH_MS + int(now * 1000))
    assert standing.username == USER
    return standing.is_online


# The notices, and whether the client is online after each (None: no change).
TAKEN_OVER = [
    # As VerneMQ sends them, and with a late end of the first connection.
    [("asked", 1), ("woke", 0), ("came", 1), ("asked", 2), ("gone", 0), ("woke", 0), ("came", 2)],
    [("asked", 1), ("came", 1), ("asked", 2), ("came", 2), ("gone", 0)],
    [("asked", 1), ("asked", 2), ("came", 2), ("came", 1), ("gone", 0)],
    [("asked", 1), ("asked", 2), ("gone", 0), ("came", 2), ("came", 1)],
    # The kept session ends when the next one does not use it.
    [("asked", 1), ("came", 1), ("offline", 0), ("asked", 2), ("gone", 0), ("came", 2)],
    [("asked", 1), ("came", 1), ("offline", 0), ("asked", 2), ("came", 2), ("gone", 0)],
]


@pytest.mark.parametrize("said", TAKEN_OVER)
def test_without_times_the_first_connection_ends_first(said: list[tuple[str, int]]) -> None:
    ids = Sessions()
    online = [verne(ids, 0.1 * n, *one) for n, one in enumerate(said)]
    assert [one for one in online if one is not None][-1] is True
    assert ids.user_of(BROKER, CLIENT, 1.0) == USER
    assert verne(ids, 2.0, "gone") is False
    assert ids.user_of(BROKER, CLIENT, 2.0) == ""


def test_without_times_a_lost_end_is_not_awaited() -> None:
    ids = Sessions()
    for n, one in enumerate([("asked", 1), ("came", 1), ("asked", 2), ("came", 2)]):
        verne(ids, 0.1 * n, *one)
    assert verne(ids, 1.0 + REPLACED_S, "gone") is False
    assert ids.user_of(BROKER, CLIENT, 1.0 + REPLACED_S) == ""


def test_another_users_connection_ends_the_one_it_replaced() -> None:
    for is_late in (False, True):
        ids = Sessions()
        ids.begin(BROKER, CLIENT, USER, 0.0)
        first = Notice(USER, CLIENT, True, peer="a:1", began_at=EPOCH_MS)
        ids.note(BROKER, first, 0.0, EPOCH_MS)
        left = Notice(USER, CLIENT, False, is_replaced=True, peer="a:1", ended_at=EPOCH_MS + 50)
        came = Notice("other", CLIENT, True, peer="a:2", began_at=EPOCH_MS + 49)
        said: dict[str, bool | None] = {USER: True}
        for notice in (came, left) if is_late else (left, came):
            for standing in ids.note(BROKER, notice, 1.0, EPOCH_MS + 1000):
                if standing.is_online is not None:
                    said[standing.username] = standing.is_online
        assert said == {USER: False, "other": True}
        assert ids.user_of(BROKER, CLIENT, 1.0) == ""


def test_a_user_is_online_as_long_as_one_of_its_connections_is() -> None:
    ids, said = Sessions(), list[bool | None]()
    for client_id, is_online in (("x", True), ("y", True), ("y", False), ("x", False)):
        at = EPOCH_MS + len(said)
        notice = Notice(USER, client_id, is_online, peer=client_id)
        said += [standing.is_online for standing in ids.note(BROKER, notice, 0.0, at)]
    assert said == [True, True, None, False]


def test_old_ended_sessions_are_forgotten() -> None:
    ids = Sessions()
    left = Notice(USER, CLIENT, False, peer="a:1", ended_at=EPOCH_MS)
    ids.note(BROKER, left, 0.0, EPOCH_MS)
    came = Notice(USER, CLIENT, True, peer="a:1")
    [standing] = ids.note(BROKER, came, ENDED_S + 1, EPOCH_MS)
    assert standing.is_online


@pytest.mark.parametrize("is_online", [True, False])
@pytest.mark.parametrize("username", ["", USER])
def test_a_notice_of_an_unknown_client_id_is_harmless(is_online: bool, username: str) -> None:
    for facts in ({}, {"peer": "a:1"}, {"began_at": EPOCH_MS}, {"ended_at": EPOCH_MS}):
        for is_replaced in (False, True):
            notice = structs.replace(
                Notice(username, CLIENT, is_online, is_replaced=is_replaced), **facts
            )
            said = Sessions().note(BROKER, notice, 0.0, EPOCH_MS)
            assert {one.username for one in said} <= {username}
