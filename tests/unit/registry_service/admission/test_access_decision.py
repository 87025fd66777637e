"""Which clients a broker admits, and with which passwords: the decisions alone."""

import hashlib
from base64 import b64encode
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.admission.decision import (
    CLIENT_ID_TAKEN,
    DISABLED,
    EXPIRED,
    NOT_TOLD,
    TOPIC_NOT_GRANTED,
    USER_UNKNOWN,
    action_verdict,
    admits,
    connect_verdict,
    uuid_of_username,
    uuids_claimed,
)
from registry_service.admission.questions import Connect, Publish, Receive, Subscribe, Use
from registry_service.admission.subjects import Subject
from registry_service.passwords import Password, is_password, is_slow

KEPT = Password("sha256", hashlib.sha256(b"saltpassword").hexdigest(), "salt")
OWN = ["iot/device/one/#"]


def subject(**changes: Any) -> Subject:
    given = {"username": "device_one", "uuid": "one", "broker_ids": [1], "password": KEPT}
    return Subject(**{**given, "publish": OWN, "subscribe": OWN, **changes})


@given(
    is_active=st.booleans(),
    broker_ids=st.none() | st.lists(st.integers(1, 3), max_size=3),
    expires_at=st.none() | st.floats(0, 200),
    broker_id=st.integers(1, 3),
)
def test_a_broker_admits_only_allowed_clients(
    is_active: bool, broker_ids: list[int] | None, expires_at: float | None, broker_id: int
) -> None:
    client = subject(is_active=is_active, broker_ids=broker_ids, expires_at=expires_at)
    verdict = admits(client, broker_id, now=100)
    is_notified = broker_ids is None or broker_id in broker_ids
    is_good = expires_at is None or expires_at > 100
    assert verdict.is_allowed == (is_active and is_notified and is_good)
    if not verdict.is_allowed:
        assert verdict in (DISABLED, EXPIRED, NOT_TOLD)
    assert admits(None, broker_id, now=100) is USER_UNKNOWN


@given(
    is_current=st.booleans(),
    previous_until=st.floats(101, 300),
    expires_at=st.none() | st.floats(101, 300),
    session_s=st.floats(1, 300),
)
def test_a_session_ends_when_it_could_not_begin_any_more(
    is_current: bool, previous_until: float, expires_at: float | None, session_s: float
) -> None:
    client = subject(previous=KEPT, previous_until=previous_until, expires_at=expires_at)
    verdict = connect_verdict(
        client, is_current=is_current, is_taken=False, session_s=session_s, now=100
    )
    assert verdict.is_allowed
    assert verdict.grants is not None
    assert (verdict.grants.publish, verdict.grants.subscribe) == (tuple(OWN), tuple(OWN))
    assert verdict.expires_at is not None
    assert verdict.expires_at <= 100 + session_s
    assert is_current or verdict.expires_at <= previous_until
    assert expires_at is None or verdict.expires_at <= expires_at
    taken = connect_verdict(
        client, is_current=is_current, is_taken=True, session_s=session_s, now=100
    )
    assert taken is CLIENT_ID_TAKEN


@pytest.mark.parametrize(
    ("question", "is_allowed"),
    [
        (Publish("u", "c", "iot/device/one/t"), True),
        (Publish("u", "c", "iot/device/one"), True),
        (Publish("u", "c", "iot/device/two/t"), False),
        (Publish("u", "c", "iot/device/one/#"), False),
        (Publish("u", "c", "iot/device/one/\0"), False),
        (Publish("u", "c", ""), False),
        (Receive("u", "c", "iot/device/one/t"), True),
        (Receive("u", "c", "iot/device/two/t"), False),
        (Subscribe("u", "c", "iot/device/one/+/x"), True),
        (Subscribe("u", "c", "iot/device/one/#"), True),
        (Subscribe("u", "c", "iot/device/+/t"), False),
        (Subscribe("u", "c", "iot/#"), False),
        (Subscribe("u", "c", "+/device/one/t"), False),
        (Subscribe("u", "c", "#"), False),
        (Subscribe("u", "c", "$share/g/iot/device/one/#"), False),
        (Use("u", "c"), True),
        # Another function decides about admission.
        (Connect("u", "p", "c"), False),
    ],
)
def test_a_device_may_use_its_own_topics(question: Any, *, is_allowed: bool) -> None:
    verdict = action_verdict(subject(), question)
    assert verdict.is_allowed is is_allowed
    assert is_allowed or verdict is TOPIC_NOT_GRANTED


def test_publishing_and_subscribing_are_granted_separately() -> None:
    account = subject(uuid="", broker_ids=None, publish=["a/#"], subscribe=["b/#", "#"])
    assert action_verdict(account, Publish("u", "c", "a/x")).is_allowed
    assert not action_verdict(account, Publish("u", "c", "b/x")).is_allowed
    assert action_verdict(account, Subscribe("u", "c", "#")).is_allowed
    assert not action_verdict(account, Subscribe("u", "c", "$SYS/#")).is_allowed


@pytest.mark.parametrize(
    ("client_id", "uuids"),
    [
        ("one", {"one"}),
        ("device_one", {"device_one", "one"}),
        ("acme-one", {"acme-one", "one"}),
        ("acme_one", {"acme_one", "one"}),
        ("mqttjs_12ab", {"mqttjs_12ab"}),
        ("", set()),
        ("a b", set()),
        ("one\n", set()),
        ("é", set()),
        ("x" * 65, set()),
    ],
)
def test_a_client_id_claims_to_be_a_device(client_id: str, uuids: set[str]) -> None:
    assert set(uuids_claimed(client_id, "acme")) == uuids


@given(st.text(max_size=80))
def test_a_claim_is_always_a_uuid(text: str) -> None:
    for uuid in uuids_claimed(text, ""):
        assert uuid.isascii()
        assert text.endswith(uuid)
        assert uuid_of_username(f"device_{uuid}") == uuid


def test_only_usernames_of_devices_contain_a_uuid() -> None:
    assert uuid_of_username("device_one") == "one"
    for other in ("one", "device_", "device_a/b", "device_one\n", "Device_one", ""):
        assert uuid_of_username(other) is None


SHA512 = b64encode(hashlib.sha512(b"password" + b"salt").digest()).decode()
PBKDF2 = b64encode(hashlib.pbkdf2_hmac("sha512", b"password", b"salt", 101)).decode()
SALT = b64encode(b"salt").decode()
HASHES = [
    KEPT,
    Password("sha256", KEPT.hash.upper(), "salt"),
    Password("sha256_suffix", hashlib.sha256(b"passwordsalt").hexdigest(), "salt"),
    Password("mosquitto_sha512", f"$6${SALT}${SHA512}"),
    Password("mosquitto_pbkdf2", f"$7$101${SALT}${PBKDF2}"),
    Password("bcrypt", bcrypt.hashpw(b"password", bcrypt.gensalt(4)).decode()),
]


@pytest.mark.parametrize("kept", HASHES, ids=lambda kept: kept.algorithm)
def test_a_password_is_verified_with_its_hash(kept: Password) -> None:
    assert is_password(kept, "password")
    for wrong in ("", "Password", "password ", "passwor", "\0password", "p" * 100, "é"):
        assert not is_password(kept, wrong)
    assert is_slow(kept) == (kept.algorithm in ("bcrypt", "mosquitto_pbkdf2"))


def test_a_password_that_cannot_be_verified_is_refused() -> None:
    for algorithm in ("none", "pbkdf2_sha256", "pbkdf2_sha512", "rot13"):
        assert not is_password(Password(algorithm, "", ""), "")
        assert not is_password(Password(algorithm, KEPT.hash, "salt"), "password")
