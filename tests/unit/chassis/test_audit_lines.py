"""The action of a line of the audit log, and the values that it never contains."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from mooring.registry.v1 import jobs_pb2

import broker_service.tables
import registry_service.tables
from chassis.audit import HIDDEN, action_of, shown, without_secrets
from registry_service.administration.devices.store import SECRET
from registry_service.credentials import new_secret


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("/mooring.broker.v1.BrokerService/UpdateBroker", "broker.update"),
        ("/mooring.broker.v1.BrokerService/SetDefaultBroker", "broker.set_default"),
        ("/mooring.broker.v1.BrokerService/ListBrokers", "broker.list"),
        (
            "/mooring.registry.v1.ProvisioningKeyService/RevokeProvisioningKey",
            "provisioning_key.revoke",
        ),
        ("/mooring.registry.v1.DeviceService/MoveDevices", "device.move"),
        ("/mooring.registry.v1.AuditService/ListAuditLog", "audit.list_log"),
        (
            "/mooring.registry.v1.RegistrationService/RegisterDevices",
            "registration.register_devices",
        ),
        ("/mooring.x.v1.DeviceService/Device", "device.device"),
    ],
)
def test_a_method_has_an_action_in_the_log(method: str, action: str) -> None:
    assert action_of(method) == action


@pytest.mark.parametrize(
    ("number", "action"),
    [
        (jobs_pb2.JOB_ACTION_START, "job.start"),
        (jobs_pb2.JOB_ACTION_UNDO, "job.undo"),
        (jobs_pb2.JOB_ACTION_UNSPECIFIED, "job.act_on"),
        (99, "job.act_on"),
    ],
)
def test_a_method_with_an_action_in_its_request_is_named_after_that(
    number: Any, action: str
) -> None:
    request = jobs_pb2.ActOnJobRequest(id=1, action=number)
    assert action_of("/mooring.registry.v1.JobService/ActOnJob", request) == action
    # A method of another name is not, whatever its request contains.
    assert action_of("/mooring.registry.v1.JobService/StartJob", request) == "job.start"


TOKEN, KEY, SECRET_OF_BROKER = new_secret("mat"), new_secret("mpk"), new_secret("mbs")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (TOKEN, TOKEN[4:]),
        (f"it is {KEY}, they said", KEY[4:]),
        (f"/{SECRET_OF_BROKER}/rabbitmq/user", SECRET_OF_BROKER[4:]),
        ("-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----\n", "MIIB"),
        ("-----BEGIN PRIVATE KEY-----\nMIIB", "MIIB"),
        ("mqtt://user:sesame@host:1883", "sesame"),
    ],
    # The secrets are random, and the names of test cases must not be.
    ids=["token", "key in a sentence", "secret in a path", "EC key", "key cut short", "url"],
)
def test_text_that_looks_like_a_secret_is_hidden(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in without_secrets(text)
    for value in (text, [text], {"a": {"b": [text]}}):
        hidden = str(shown(value))
        assert HIDDEN in hidden
        assert secret not in hidden


def test_a_value_with_the_name_of_a_secret_is_hidden_but_its_existence_is_shown() -> None:
    names = (
        "password",
        "mqtt_password_hash",
        "private_key_encrypted",
        "api_key",
        "token",
        "secret",
    )
    for name in names:
        assert shown({name: "x"}) == {name: HIDDEN}
        assert shown({"deep": [{name: 5}]}) == {"deep": [{name: HIDDEN}]}
        assert shown({name: None}) == {name: None}
        assert shown({f"has_{name}": True}) == {f"has_{name}": True}


def test_every_secret_column_would_be_hidden() -> None:
    """Recording a whole row would reveal no secret."""
    for metadata in (broker_service.tables.metadata, registry_service.tables.metadata):
        for table in metadata.tables.values():
            for column in table.c:
                if isinstance(column.type, sa.LargeBinary) or column.name in SECRET:
                    value: Any = 7 if column.name == "credential_key_id" else b"x"
                    expected = 7 if column.name == "credential_key_id" else HIDDEN
                    assert shown({column.name: value}) == {column.name: expected}, column
    assert shown({"credential_salt": "x"}) == {"credential_salt": HIDDEN}


def test_other_values_are_unchanged() -> None:
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    values = {
        "keep_alive": 60,
        "latitude": 1.5,
        "name": "a token of thanks",
        "ids": (1, 2),
        "expires_at": moment,
        "id": UUID(int=1),
        "provisioned_by_key_id": "k",
        "fingerprint_sha256": "ab",
        "nan": float("nan"),
    }
    assert shown(values) == values | {
        "ids": [1, 2],
        "expires_at": "2026-11-24T00:00:00+00:00",
        "id": "00000000-0000-0000-0000-000000000001",
        "nan": "nan",
    }
