"""Which devices get new credentials when they register again, and from which key and salt."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st
from mooring.broker.v1 import resolution_pb2

from registry_service.credentials import KeyRing, hash_of_password
from registry_service.provisioning.answer import AnswerComposer, needs_another_password
from registry_service.provisioning.choices import Answer
from registry_service.provisioning.decision import Decision, ProvisioningKey
from registry_service.provisioning.placements import DevicePlacement
from registry_service.provisioning.plans import Planner, rotation
from registry_service.provisioning.records import Credentials, Device, Known, KnownKey, Note
from registry_service.provisioning.request import Registration
from tests.unit.registry_service.provisioning.test_guesses import guesses

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = {1: b"a" * 32, 2: b"b" * 32, 3: b"c" * 32}
KEY = ProvisioningKey(UUID(int=1), "demo")
COMPOSER = AnswerComposer("mqtt://h:1", 60, 6)
ANSWERS = st.builds(
    Answer,
    st.just(resolution_pb2.SOURCE_DEFAULT),
    st.none() | st.builds(resolution_pb2.BrokerSettings, id=st.integers(1, 3)),
    st.booleans(),
)
SALTS = st.text("0123456789abcdef", min_size=32, max_size=32)


def registration(api_key: str, salt: str) -> Registration:
    return Registration(
        key_hash=b"k",
        uuid="d",
        device_name="d",
        device_type="t",
        device_api_key=api_key,
        application_id="",
        mac_address="",
        os_version="",
        agent_version="",
        region="",
        latitude=None,
        longitude=None,
        source_address="",
        salt=salt,
    )


def device_with(credentials: Credentials) -> Device:
    return Device(
        placement=DevicePlacement(None, "demo", "", fleet_has_rule=False, fleet_revision=1),
        id=7,
        uuid="d",
        device_name="d",
        device_type="t",
        api_key_hash=credentials.api_key_hash,
        credential_key_id=credentials.key_id,
        provisioned_by_key_id=KEY.id,
        credential_salt=credentials.salt,
        salt_broker_ids=[1],
        is_active=True,
        reprovisioning_allowed=False,
        note=Note([], "", []),
        proved_from=None,
        has_short_api_key=True,
        rotations=0,
        rotations_since=None,
        created_at=NOW,
        was_just_told=False,
    )


@given(
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2, 3]),
    SALTS | st.just(""),
    SALTS,
    st.text("abc", min_size=8, max_size=12),
    ANSWERS,
)
def test_a_device_leaves_a_retired_key_an_ended_password_and_one_of_other_brokers(
    made_with: int, active: int, salt: str, fresh: str, api_key: str, answer: Answer
) -> None:
    assume(salt != fresh)  # never used twice
    ring = KeyRing(active, KEYS)
    before = Credentials.made(ring, made_with, "d", salt, api_key)
    known_key = KnownKey(b"k", KEY, False, 1)
    known = Known({b"k": known_key}, {"d": device_with(before)}, "v")
    planner = Planner(ring, COMPOSER, known, guesses(), NOW)
    decided = planner.plan(0, registration(api_key, fresh))
    assert decided.decision is Decision.CONFIRM
    assert decided.replaces_credentials == (made_with != active or not salt)
    plan = planner.for_answer(decided, answer)
    is_moved = needs_another_password([1], answer)
    assert plan.replaces_credentials == (decided.replaces_credentials or is_moved)
    if decided.replaces_credentials:
        assert plan == decided  # one new salt is enough
    assert plan.device is not None
    outcome = planner.outcome(plan, answer, 7, NOW)
    assert not outcome.is_created
    after = plan.credentials
    assert outcome.answer.password == after.password
    if not plan.replaces_credentials:
        assert after == before
        return
    change = rotation(plan.device, after, answer, plan.registration.proof, is_asked=False)
    assert (change.replaced_salt, change.credential_key_id) == (salt, active)
    assert change.credential_salt not in ("", salt, fresh)
    assert after.password != before.password
    assert change.mqtt_password_hash == hash_of_password(change.credential_salt, after.password)
    # After the new credentials are written, it registers with them, and they do not change again.
    moved = device_with(after)
    assert moved.is_proved_by(api_key, ring)
    assert not moved.is_proved_by(f"{api_key}!", ring)
    assert not moved.needs_credentials(ring)
    assert (
        outcome.answer.generation != COMPOSER.compose("d", salt, made_with, "", answer).generation
    )
