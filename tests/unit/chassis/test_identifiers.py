"""Valid identifiers of devices, and that every dialect recognises them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from chassis.validation import IDENTIFIER, check_identifier
from registry_service.admission.decision import uuid_of_username, uuids_claimed
from registry_service.credentials import topics_of, username_of
from registry_service.topics import covers, is_filter, is_topic, matches

IDENTIFIERS = st.from_regex(IDENTIFIER, fullmatch=True)


@pytest.mark.parametrize(
    "uuid", ["a", "-", "_", "--", "-x", "_x", "x-", "Aa09_-", "-" * 64, "test-device-123"]
)
def test_a_valid_identifier_is_accepted(uuid: str) -> None:
    check_identifier("uuid", uuid)


@pytest.mark.parametrize(
    ("uuid", "advice"),
    [
        ("AA:BB:CC:DD:EE:0f", "AA-BB-CC-DD-EE-0f"),
        ("aa.bb.cc.dd.ee.ff", "aa-bb-cc-dd-ee-ff"),
        ("aabb.ccdd.eeff", "aabbccddeeff"),
        ("urn:uuid:1", "hyphens instead"),
        ("plant.line.7", "hyphens instead"),
        ("", "1 to 64"),
        ("x" * 65, "1 to 64"),
        ("a/b", "1 to 64"),
        ("a+", "1 to 64"),
        ("#", "1 to 64"),
        ("a*", "1 to 64"),
        ("a b", "1 to 64"),
        ("a\n", "1 to 64"),
        ("é", "1 to 64"),
        ("a\0", "1 to 64"),
    ],
)
def test_an_invalid_identifier_is_refused_with_advice(uuid: str, advice: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_identifier("uuid", uuid)
    assert refused.value.field == "uuid"
    assert advice in refused.value.message


@given(IDENTIFIERS)
def test_every_identifier_is_recognised(uuid: str) -> None:
    assert uuid_of_username(username_of(uuid)) == uuid
    for client_id in (uuid, username_of(uuid), f"mooring-{uuid}", f"mooring_{uuid}"):
        assert uuid in uuids_claimed(client_id, "mooring")
    for topic_filter in topics_of(uuid):
        assert is_filter(topic_filter)


@given(IDENTIFIERS, IDENTIFIERS)
def test_no_device_reaches_another_devices_topics(one: str, other: str) -> None:
    [own] = topics_of(one)
    topic = f"iot/device/{other}/x"
    assert is_topic(topic)
    assert matches(own, topic) == (one == other)
    assert covers(own, topics_of(other)[0]) == (one == other)
    # RabbitMQ writes dots for slashes, so two topics must not become one there.
    assert (topics_of(one)[0].replace("/", ".") == topics_of(other)[0].replace("/", ".")) == (
        one == other
    )
