"""Answers of a Mosquitto on its control topic are accepted only if they are as documented."""

from typing import Any

import msgspec
import pytest

from registry_service.admission.reconciler.dynamic_security import Acl, Client, Held
from registry_service.admission.reconciler.listings import PAGE, Moved, Reading, read_client
from registry_service.admission.reconciler.mosquitto_client import _read
from registry_service.errors import ControlUnreadable


@pytest.mark.parametrize(
    "payload",
    [
        b"token",
        b"[]",
        b"{}",
        b'{"responses": {"correlationData": "token:0"}}',
        b'{"responses": [{"correlationData": "token:0"}]}',
        b'{"responses": [{"correlationData": "token:0"}, {"correlationData": "token:2"}]}',
        b'{"responses": [{"correlationData": "token:0"}, "token:1"]}',
        b'{"responses": [{"correlationData": "token:0"}, {"correlationData": "token:1"}',
        # The answer for a role that was deleted while a client still held it (2.0.11).
        b'{"responses": [{"correlationData": "token:0", "data": "\xf1\x9a$\xfd"}]}',
    ],
)
def test_an_undocumented_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(ControlUnreadable):
        _read(payload, "token", 2)


def test_answers_are_matched_by_their_correlation() -> None:
    payload = (
        b'{"responses": [{"command": "b", "correlationData": "token:1", "error": "No"},'
        b' {"command": "a", "correlationData": "token:0", "data": {"x": 1}}]}'
    )
    first, second = _read(payload, "token", 2)
    assert (first.error, first.data, second.error, second.data) == ("", {"x": 1}, "No", None)


def page(total: int, *names: str) -> dict[str, Any]:
    return {"totalCount": total, "clients": [{"username": name} for name in names]}


def names(first: int, count: int) -> list[str]:
    return [f"{number:06}" for number in range(first, first + count)]


def test_pages_are_requested_until_the_last_one() -> None:
    reading = Reading()
    offsets = []
    for _ in range(3):
        [*questions] = reading.questions()
        offsets.append([(one.name, one.arguments["offset"]) for one in questions])
        for one in questions:
            offset = one.arguments["offset"]
            assert isinstance(offset, int)
            if one.name == "listClients":
                count = min(PAGE, PAGE + 1 - offset)
                reading.take(one.name, page(PAGE + 1, *names(offset, count)))
            else:
                reading.take(one.name, {"totalCount": 0})
    assert offsets == [
        [("listClients", 0), ("listRoles", 0), ("listGroups", 0)],
        [("listClients", PAGE)],
        [],
    ]
    assert list(reading.actual().clients) == names(0, PAGE + 1)


@pytest.mark.parametrize(
    "second",
    [
        page(PAGE + 2, *names(PAGE, 2)),  # one more
        page(PAGE, *names(PAGE, 0)),  # one less
        page(PAGE + 1, *names(PAGE - 1, 1)),  # the same once more
        page(PAGE + 1),  # nothing
        page(PAGE + 1, *names(PAGE, 2)),  # more than there are
    ],
)
def test_lists_that_change_during_reading_are_read_again(second: dict[str, Any]) -> None:
    reading = Reading()
    reading.take("listClients", page(PAGE + 1, *names(0, PAGE)))
    with pytest.raises(Moved):
        reading.take("listClients", second)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"totalCount": "many"},
        {"totalCount": -1},
        {"totalCount": 1_000_000_000},
        {"totalCount": 1, "clients": [{}]},
        {"totalCount": 1, "clients": [{"username": None}]},
        {"totalCount": 1, "clients": [{"username": "a", "roles": ["a"]}]},
        {"totalCount": 1, "roles": [{"rolename": "a", "acls": [{}]}]},
    ],
)
def test_an_undocumented_list_is_refused(data: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        Reading().take("listClients", data)


def test_everything_that_is_listed_is_read() -> None:
    listed = {
        "username": "a",
        "clientid": "c",
        "textname": "n",
        "textdescription": "d",
        "disabled": True,
        "roles": [{"rolename": "r"}, {"rolename": "s", "priority": 3}],
        "groups": [{"groupname": "g"}],
    }
    client = Client(
        "a", "n", "d", "c", True, frozenset({Held("r"), Held("s", 3)}), frozenset({"g"})
    )
    assert read_client({"client": listed}) == client
    reading = Reading()
    reading.take("listClients", {"totalCount": 1, "clients": [listed]})
    acl = {"acltype": "subscribePattern", "topic": "x", "priority": 1, "allow": False}
    reading.take("listRoles", {"totalCount": 1, "roles": [{"rolename": "r", "acls": [acl]}]})
    group = {"groupname": "g", "roles": [{"rolename": "q"}], "clients": [{"username": "a"}]}
    reading.take("listGroups", {"totalCount": 1, "groups": [group]})
    actual = reading.actual()
    assert actual.clients == {"a": client}
    assert actual.roles == {"r": frozenset({Acl("subscribePattern", "x", False, 1)})}
    assert actual.group_roles == {"q"}
