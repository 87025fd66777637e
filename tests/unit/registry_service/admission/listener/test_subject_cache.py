"""The cached subjects and client ids, and when they are no longer used."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from registry_service.admission.listener import connections, sessions, subject_cache
from registry_service.admission.listener.sessions import Sessions
from registry_service.admission.listener.store import Found
from registry_service.admission.listener.subject_cache import SubjectCache
from registry_service.admission.questions import Notice
from registry_service.admission.subjects import Subject
from registry_service.passwords import Password

USERS = ("a", "b", "c")
FLEETS = {"a": "f", "b": "f", "c": "g"}


def subject(username: str, version: int = 0) -> Subject:
    kept = Password("sha256", str(version))
    return Subject(username=username, uuid=username, fleet_id=FLEETS[username], password=kept)


def found(*subjects: Subject, claimed: dict[str, frozenset[int]] | None = None) -> Found:
    return Found({one.username: one for one in subjects}, claimed or {})


# In place of the database: a version of each subject. A lookup reads at one moment and returns
# later; changes are committed, and announced later.
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(USERS)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("change"), st.sampled_from(USERS)),
    st.tuples(st.just("change fleet"), st.sampled_from(("f", "g"))),
    st.tuples(st.just("hear"), st.just("")),
    st.tuples(st.just("forget all"), st.just("")),
)


@settings(max_examples=1000)
@given(st.lists(STEPS, max_size=40))
def test_after_its_announcement_a_change_is_always_visible(steps: list[tuple[str, Any]]) -> None:
    cache = SubjectCache()
    version = dict.fromkeys(USERS, 0)
    # The committed versions at the time of the last announcement.
    heard = dict(version)
    unheard: list[tuple[set[str], set[str]]] = []
    under_way: list[tuple[Subject, set[str]]] = []
    for step, what in steps:
        if step == "begin":
            under_way.append((subject(what, version[what]), cache.begin()))
        elif step == "end" and what < len(under_way):
            read, spoilt = under_way.pop(what)
            cache.remember(found(read), (), spoilt, now=0)
        elif step == "change":
            version[what] += 1
            unheard.append(({what}, set()))
        elif step == "change fleet":
            for user in USERS:
                version[user] += FLEETS[user] == what
            unheard.append((set(), {what}))
        elif step == "hear":
            for users, fleets in unheard:
                cache.forget(users, fleets)
            unheard, heard = [], dict(version)
        elif step == "forget all":
            cache.forget_all()
            unheard, heard = [], dict(version)
        for user in USERS:
            remembered = cache.subject(user, now=0)
            assert remembered is None or int(remembered.password.hash) >= heard[user], steps


def test_the_cache_is_bounded() -> None:
    cache = SubjectCache()
    cache.remember(found(subject("a")), ["ghost", "a"], cache.begin(), now=0)
    assert cache.subject("a", now=subject_cache.MAX_AGE_S) is not None
    assert cache.subject("a", now=subject_cache.MAX_AGE_S + 1) is None
    assert cache.is_unowned("ghost", 1, now=1)
    assert not cache.is_unowned("ghost", 1, now=subject_cache.UNOWNED_S + 1)
    cache.forget_all()
    assert not cache.is_unowned("ghost", 1, now=1)
    taken = found(claimed={"there": frozenset({1})})
    cache.remember(taken, ["there"], cache.begin(), now=0)
    assert not cache.is_unowned("there", 1, now=0)
    # A broker that does not serve the device is answered as if the device did not exist.
    assert cache.is_unowned("there", 2, now=0)
    cache.remember(None, ["failed"], cache.begin(), now=0)
    assert not cache.is_unowned("failed", 1, now=0)


def test_a_subject_that_changes_during_its_lookup_is_looked_up_again() -> None:
    cache = SubjectCache()
    for usernames, fleet_ids, is_whole in (
        ([], [], True),
        (["b"], [], True),
        (["a"], [], False),
        ([], ["f"], False),
    ):
        spoilt = cache.begin()
        cache.forget(usernames, fleet_ids)
        assert cache.remember(found(subject("a")), (), spoilt, now=0) is is_whole
        assert (cache.subject("a", now=0) is not None) is is_whole
    spoilt = cache.begin()
    cache.forget_all()
    assert not cache.remember(found(subject("a")), (), spoilt, now=0)


def test_a_client_id_belongs_to_its_user_until_it_disconnects() -> None:
    ids = Sessions()
    assert ids.user_of(1, "c", now=0) == ""
    ids.begin(1, "c", "device_a", now=0)
    ids.begin(1, "", "device_b", now=0)
    assert ids.user_of(1, "c", now=1) == "device_a"
    assert ids.user_of(1, "", now=1) == ""
    # At another broker it can belong to another user.
    assert ids.user_of(2, "c", now=1) == ""
    assert ids.user_of(1, "c", now=connections.MAX_AGE_S) == ""
    left = Notice("", "c", is_online=False)
    ids.note(1, structs.replace(left, is_kept=True), 1, 1000)
    assert ids.user_of(1, "c", now=1) == "device_a"
    ids.note(1, left, 1, 1000)
    assert ids.user_of(1, "c", now=1) == ""
    # The session is kept, as the broker said when the client connected.
    ids.begin(1, "c", "device_a", now=2)
    for notice in (Notice("device_a", "c", is_online=True, is_kept=True), left):
        ids.note(1, notice, 2, 2000)
    assert ids.user_of(1, "c", now=2) == "device_a"
    ids.begin(1, "c", "device_a", now=3)
    for notice in (Notice("device_a", "c", is_online=True), left):
        ids.note(1, notice, 3, 3000)
    assert ids.user_of(1, "c", now=3) == ""
    # A user that takes it over has it, and a user whose access changed loses it.
    ids.begin(1, "c", "device_a", now=0)
    ids.begin(1, "d", "device_a", now=0)
    ids.begin(1, "c", "device_b", now=0)
    ids.forget(["device_a", "nobody"])
    assert (ids.user_of(1, "c", now=0), ids.user_of(1, "d", now=0)) == ("device_b", "")
    ids.forget(["device_b"])
    assert ids.user_of(1, "c", now=0) == ""


def test_no_user_and_no_broker_takes_room_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_CLIENT_IDS", 1000)
    ids = Sessions()
    ids.begin(1, "mine", "device_b", now=0)
    for n in range(10_000):
        ids.begin(1, f"c{n}", "device_a", now=0)
        ids.begin(2, f"c{n}", f"device_{n}", now=0)
        ids.note(2, Notice(f"device_{n}", f"d{n}", is_online=True), 0, 0)
    assert ids.user_of(1, "mine", now=0) == "device_b"
    # The user's own oldest ones are dropped.
    assert ids.user_of(1, f"c{9_999 - sessions.MAX_OF_USER}", now=0) == ""
    assert ids.user_of(1, f"c{10_000 - sessions.MAX_OF_USER}", now=0) == "device_a"
    assert ids.user_of(2, "c1", now=0) == ""
    assert ids.user_of(2, "c9999", now=0) == "device_9999"
