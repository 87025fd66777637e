"""Real bodies, answers and parameters, for the OpenAPI document: those of one small installation.

What is here is sent and compared in a test: in a new installation of `make run` with one device,
each body is accepted.
"""

import json
from typing import Any

REQUEST_ID = "9f0c6f6a3d1e4c0f8a5b2d7e6c1a0b94"
MOMENT = "2026-11-23T19:00:00.123456Z"
UUID = "test-device-123"
TOKEN_ID = "3c1d9b7e-52a4-4f6b-8e0d-6a7b8c9d0e1f"  # noqa: S105 - an id is no secret
KEY_ID = "8a6f2f0e-3a53-4d0c-9d5e-0c1f7c1b2a11"
SECRET_ID = "5b0e7c92-61d4-4a8f-9c37-2f4e6d8a0b13"  # noqa: S105 - an id is no secret
ACCOUNT_ID = "d4a1b2c3-9e8f-4071-8b6a-5c4d3e2f1a09"
# Of nobody, and without their keys; they are good until 2099.
CA_PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    "MIH4MIGroAMCAQICAgfpMAUGAytlcDAaMRgwFgYDVQQDDA9FeGFtcGxlIENBIDIw\n"
    "MjUwIBcNMjUwMTAxMDAwMDAwWhgPMjA5OTEyMzEwMDAwMDBaMBoxGDAWBgNVBAMM\n"
    "D0V4YW1wbGUgQ0EgMjAyNTAqMAUGAytlcAMhAOp4TARiAljUquDCG8ddAu3RhWCx\n"
    "VILucSulzABXdExJoxMwETAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAEY9ZSyp\n"
    "1yr8wFInn5hJtLPn7C0RWKAP2aD0ZI9quLRW42YvrSwaHF+l3IDOJ3edkqishqq9\n"
    "HC+iazRk5uSsBAo=\n"
    "-----END CERTIFICATE-----\n"
)
NEXT_CA_PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    "MIH4MIGroAMCAQICAgfqMAUGAytlcDAaMRgwFgYDVQQDDA9FeGFtcGxlIENBIDIw\n"
    "MjYwIBcNMjYwMTAxMDAwMDAwWhgPMjA5OTEyMzEwMDAwMDBaMBoxGDAWBgNVBAMM\n"
    "D0V4YW1wbGUgQ0EgMjAyNjAqMAUGAytlcAMhAC10yYNEYiWCPRkZ4AcM9x45MV+V\n"
    "bkDkIO6bE157C8FOoxMwETAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAO+upGgN\n"
    "2XHxvZMlsqqPEoq8y8MHYj34OSbsYmuSFev+hUIOdvEaQMR2PsSUJqukHk2jbxID\n"
    "Ve2dUdEtJipcXg8=\n"
    "-----END CERTIFICATE-----\n"
)

# By their names, wherever they stand in paths and queries.
PARAMETERS: dict[str, Any] = {
    "uuid": UUID,
    "broker_id": 1,
    "certificate_id": 1,
    "told": "old",
    "revision": 1,
    "fleet_id": "demo",
    "key_id": KEY_ID,
    "token_id": TOKEN_ID,
    "secret_id": SECRET_ID,
    "account_id": ACCOUNT_ID,
    "job_id": 1,
    "limit": 100,
    "cursor": "",
}

_BROKER: dict[str, Any] = {
    "id": 1,
    "name": "Local Broker",
    "description": "",
    "protocol": "mqtt",
    "host": "localhost",
    "port": 5883,
    "path": "",
    "use_tls": False,
    "verify_certificate": True,
    "client_id_prefix": "mooring",
    "keep_alive": 60,
    "clean_session": True,
    "reconnect_period": 1000,
    "connect_timeout": 30000,
    "ca_cert": None,
    "is_active": True,
    "region": "",
    "username": None,
    "has_password": False,
    "labels": {"site": "berlin"},
    "management": "",
    "management_url": "",
    "is_default": True,
    "ca_certificate_id": None,
    "client_certificate_id": None,
    "revision": 1,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "warnings": [],
}
_CERTIFICATE: dict[str, Any] = {
    "id": 1,
    "kind": "ca",
    "name": "Example CA 2025",
    "has_private_key": False,
    "fingerprint_sha256": "0a962c6a0cd96648c66e51a06f59196ee9d01b7920259a3f7f77e2a4e14c71e1",
    "subject": "CN=Example CA 2025",
    "issuer": "CN=Example CA 2025",
    "not_before": "2025-01-01T00:00:00Z",
    "not_after": "2099-12-31T00:00:00Z",
    "created_at": MOMENT,
    "broker_ids": [1],
    "replacement_id": None,
    "warnings": [],
}
_DEVICE: dict[str, Any] = {
    "id": 1,
    "uuid": UUID,
    "device_name": "Test Device",
    "device_type": "raspberry-pi-4",
    "fleet_id": "demo",
    "mqtt_broker_id": None,
    "is_active": True,
    "region": None,
    "location": None,
    "reprovisioning_allowed": False,
    "mqtt_username": f"device_{UUID}",
    "application_id": "",
    "mac_address": "",
    "os_version": "",
    "agent_version": "",
    "is_online": False,
    "last_seen_at": None,
    "provisioned_at": MOMENT,
    "provisioned_by_key_id": KEY_ID,
    "told_broker_ids": [1],
    "told_at": MOMENT,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "has_short_api_key": False,
}
_ROLLOUT: dict[str, Any] = {
    "broker_id": 1,
    "percent": 12.5,
    "salt": "5f2c9a0e7d41b836",
    "began_at": MOMENT,
}
_FLEET: dict[str, Any] = {
    "id": "demo",
    "name": "Demo",
    "mqtt_broker_id": None,
    "allowed_broker_ids": None,
    "is_active": True,
    "uuid_prefix": "sensor-",
    "devices_outside_prefix": 0,
    "rollout": _ROLLOUT,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
_KEY: dict[str, Any] = {
    "id": KEY_ID,
    "fleet_id": "demo",
    "description": "the first hall",
    "max_devices": 5000,
    "devices_provisioned": 1,
    "default_broker_id": None,
    "expires_at": "2099-12-31T23:59:59Z",
    "is_active": True,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "last_used_at": MOMENT,
    "allowed_device_types": ["raspberry-pi-4"],
    "source_networks": ["192.0.2.0/24"],
    "allowed_uuid_count": None,
    "uuid_prefix": None,
    "only_expected": False,
}
_EXPECTED: dict[str, Any] = {
    "uuid": "test-device-124",
    "fleet_id": "demo",
    "device_name": "The second",
    "device_type": "raspberry-pi-4",
    "mqtt_broker_id": 1,
    "region": None,
    "location": None,
    "created_at": MOMENT,
    "registered_at": None,
}
_TOKEN: dict[str, Any] = {
    "id": TOKEN_ID,
    "name": "nightly backup",
    "role": "viewer",
    "prefix": "mat_tV5pQ7",
    "is_active": True,
    "expires_at": "2099-12-31T23:59:59Z",
    "created_at": MOMENT,
    "last_used_at": None,
    "fleet_ids": ["demo"],
    "max_devices": None,
    "devices_made": 0,
}
_SECRET: dict[str, Any] = {
    "id": SECRET_ID,
    "broker_id": 1,
    "prefix": "mbs_hJ2kL4",
    "created_at": MOMENT,
    "last_used_at": None,
}
_ACCOUNT: dict[str, Any] = {
    "id": ACCOUNT_ID,
    "username": "dashboard",
    "description": "what hangs in the hall",
    "publish": ["dashboard/status"],
    "subscribe": ["iot/device/+/telemetry/#"],
    "broker_ids": [1],
    "is_active": True,
    "expires_at": "2099-12-31T23:59:59Z",
    "revision": 1,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
_PASSWORDED: dict[str, Any] = {
    **_ACCOUNT,
    "password": "qR8sT0uV2wX4yZ6aB8cD0eF2gH4iJ6kL8mN0oP2qR4s",
}
_AUDIT_LINE: dict[str, Any] = {
    "id": 7,
    "at": MOMENT,
    "actor": "nightly backup",
    "actor_id": TOKEN_ID,
    "action": "broker.update",
    "subject": "1",
    "refusal": None,
    "count": 1,
    "before": {"keep_alive": 60},
    "after": {"keep_alive": 30},
    "details": None,
    "session_role": "mooring_broker",
    "request_id": REQUEST_ID,
}
_JOB: dict[str, Any] = {
    "id": 1,
    "kind": "assign",
    "mqtt_broker_id": 1,
    "filter": {"fleet_id": "demo", "mqtt_broker_id": None},
    "state": "running",
    "is_undo": False,
    "failure": None,
    "progress": 0.25,
    "rows_per_s": 24_000.0,
    "outcomes": {"moved": 250_000, "BROKER_NOT_ALLOWED": 12},
    "is_uploaded": False,
    "actor": "nightly backup",
    "created_at": MOMENT,
    "started_at": MOMENT,
    "ended_at": None,
}
_JOB_ROW: dict[str, Any] = {
    "line": None,
    "uuid": UUID,
    "from_broker_id": None,
    "to_broker_id": 1,
    "outcome": "moved",
    "verdict": None,
    "detail": None,
}
_USAGE: dict[str, Any] = {
    "devices": 0,
    "fleets": 0,
    "keys": 0,
    "allowances": 0,
    "expected_devices": 0,
    "rollouts": 0,
}
_COUNTS: dict[str, Any] = {
    "broker_id": 1,
    "name": "Local Broker",
    "assigned": {"device": 0, "fleet": 0, "default": 1},
    "told": {"device": 0, "rollout": 0, "fleet": 0, "region": 0, "default": 1, "unknown": 0},
}
_MQTT: dict[str, Any] = {
    "username": f"device_{UUID}",
    "password": "kVq3x0mJ0b8y1m2Q4r6T8u0W2y4A6c8E0g2I4k6M8o0",
    "broker": "mqtt://localhost:5883",
    "brokerConfig": {
        "protocol": "mqtt",
        "host": "localhost",
        "port": 5883,
        "useTls": False,
        "verifyCertificate": True,
        "clientIdPrefix": "mooring",
        "keepAlive": 60,
        "cleanSession": True,
        "reconnectPeriod": 1000,
        "connectTimeout": 30000,
    },
    "topics": {"publish": [f"iot/device/{UUID}/#"], "subscribe": [f"iot/device/{UUID}/#"]},
    "source": "default",
    "generation": "5a1f0c3b9d2e4f68",
    "refreshAfter": 3600,
}


def _step(step: str, reason: str, explanation: str, broker_id: int | None = None) -> dict[str, Any]:
    return {
        "step": step,
        "has_decided": reason == "DECIDED",
        "reason": reason,
        "explanation": explanation,
        "mqtt_broker_id": broker_id,
    }


_EXPLANATION: dict[str, Any] = {
    "source": "default",
    "mqtt_broker_id": 1,
    "url": "mqtt://localhost:5883",
    "stale": False,
    "facts": {"mqtt_broker_id": None, "fleet_id": "demo", "region": None, "location": None},
    "steps": [
        _step("device", "NO_PIN", "the device is not pinned to a broker"),
        _step("rollout", "NO_ROLLOUT", "the fleet demo has no rollout under way"),
        _step("fleet", "FLEET_HAS_NO_BROKER", "the fleet demo has no broker of its own"),
        _step("region", "NO_REGION", "the device has no region"),
        _step("default", "DECIDED", "broker 1 is the default", 1),
        _step("environment", "DECIDED_EARLIER", "not asked: the default has decided"),
    ],
}


def _page(item: dict[str, Any]) -> dict[str, Any]:
    return {"items": [item], "next_cursor": None}


# By the name of the type.
BODIES: dict[str, Any] = {
    "NewDevice": {
        "uuid": UUID,
        "deviceName": "Test Device",
        "deviceType": "raspberry-pi-4",
        "deviceApiKey": "test-api-key",
    },
    "RegisteredDevice": {
        "id": 1,
        "uuid": UUID,
        "deviceName": "Test Device",
        "deviceType": "raspberry-pi-4",
        "fleetId": "demo",
        "createdAt": MOMENT,
        "mqtt": _MQTT,
    },
    "Mqtt": _MQTT,
    "NewBroker": {
        "name": "Cloud",
        "protocol": "mqtts",
        "host": "mqtt.example.com",
        "port": 8883,
        "region": "eu",
        "labels": {"site": "berlin"},
    },
    "BrokerChange": {"keep_alive": 30, "description": "in the basement"},
    "Broker": _BROKER,
    "BrokerPage": _page(_BROKER),
    "BrokerHistory": _page(
        {
            "revision": 2,
            "kind": "updated",
            "changed_at": MOMENT,
            "changed_by": "nightly backup",
            "by_sql": False,
            "changes": {"keep_alive": {"from": 60, "to": 30}, "password": "changed"},
        }
    ),
    "Rollback": {"revision": 1},
    "BrokerUsage": {**_USAGE, "devices": 12_000, "fleets": 1},
    "DeviceCounts": _COUNTS,
    "DeviceCountPage": _page(_COUNTS),
    "Move": {"to_broker_id": 2, "move_allowances": True},
    "Moved": {"moved": {**_USAGE, "devices": 12_000, "fleets": 1}, "left": _USAGE},
    "NewCertificate": {"kind": "ca", "name": "Example CA 2025", "pem": CA_PEM},
    "CertificateChange": {"name": "Example CA, the first"},
    "Certificate": {**_CERTIFICATE, "pem": CA_PEM},
    "CertificatePage": _page(_CERTIFICATE),
    "NewRotation": {"replacement": {"pem": NEXT_CA_PEM}, "threshold_percent": 99},
    "Rotation": {
        "certificate_id": 1,
        "replacement_id": 2,
        "began_at": MOMENT,
        "threshold_percent": 99,
        "broker_ids": [1],
        "told": {"old": 12, "both": 4_988, "new": 0},
        "too_early": None,
        "warnings": [],
    },
    "RotationDevices": {"items": [UUID], "next_cursor": None},
    "Cutover": {"force": False},
    "DeviceChange": {"mqtt_broker_id": 1, "device_name": "The first"},
    "Device": _DEVICE,
    "DevicePage": _page(_DEVICE),
    "NewFleet": {"id": "north", "name": "North", "mqtt_broker_id": 1},
    "FleetChange": {"name": "Demonstration", "allowed_broker_ids": None},
    "Fleet": _FLEET,
    "FleetPage": _page(_FLEET),
    "RolloutChange": {"broker_id": 1, "percent": 12.5},
    "Rollout": _ROLLOUT,
    "NewProvisioningKey": {
        "fleet_id": "demo",
        "description": "the first hall",
        "max_devices": 5000,
        "expires_at": "2099-12-31T23:59:59Z",
        "allowed_device_types": ["raspberry-pi-4"],
        "source_networks": ["192.0.2.0/24"],
    },
    "ProvisioningKeyChange": {"max_devices": 6000, "uuid_prefix": None},
    "ProvisioningKey": {**_KEY, "allowed_uuids": None},
    "CreatedProvisioningKey": {
        **_KEY,
        "allowed_uuids": None,
        "key": "mpk_gN3tV5pQ7rS9uW1xY3zA5bC7dE9fG1hI3jK5lM7nO9p",
    },
    "ProvisioningKeyPage": _page(_KEY),
    "Revocation": {"devices": "deactivate"},
    "Revoked": {"devices_deactivated": 1, "is_complete": True},
    "NewExpectedDevice": {
        "uuid": "test-device-124",
        "fleet_id": "demo",
        "device_name": "The second",
        "mqtt_broker_id": 1,
    },
    "ExpectedDevice": _EXPECTED,
    "ExpectedDevicePage": _page(_EXPECTED),
    "Batch": {
        "created": 0,
        "refused": [
            {
                "index": 0,
                "uuid": "test-device-124",
                "field": "uuid",
                "reason": "DEVICE_EXPECTED",
                "detail": "a device with this uuid is expected already",
            }
        ],
    },
    "NewJob": {"kind": "assign", "mqtt_broker_id": 1, "filter": None},
    "Job": _JOB,
    "JobPage": _page(_JOB),
    "JobRowPage": _page(_JOB_ROW),
    "JobCheck": {
        "outcomes": {"moved": 1},
        "moves": [
            {
                "before": {"mqtt_broker_id": 1, "source": "default"},
                "after": {"mqtt_broker_id": 1, "source": "device"},
                "devices": 1,
                "examples": [UUID],
            }
        ],
        "devices_left_out": 0,
    },
    "NewToken": {
        "name": "nightly backup",
        "role": "viewer",
        "expires_at": "2099-12-31T23:59:59Z",
        "fleet_ids": ["demo"],
    },
    "Token": _TOKEN,
    "CreatedToken": {**_TOKEN, "token": "mat_tV5pQ7rS9uW1xY3zA5bC7dE9fG1hI3jK5lM7nO9pQ1r"},
    "TokenPage": _page(_TOKEN),
    "BrokerSecret": _SECRET,
    "CreatedBrokerSecret": {**_SECRET, "secret": "mbs_hJ2kL4mN6oP8qR0sT2uV4wX6yZ8aB0cD2eF4gH6iJ8k"},
    "BrokerSecretPage": _page(_SECRET),
    "Enforcement": {
        "broker_id": 1,
        "management": "mosquitto",
        "looked_at": MOMENT,
        "in_step_at": MOMENT,
        "clients": 412,
        "problem": None,
        "pending_revocations": 0,
        "revocations": {
            "count": 37,
            "median_s": 0.021,
            "slowest_s": 0.48,
            "last_at": MOMENT,
            "last_s": 0.019,
        },
    },
    "NewServiceAccount": {
        "username": "dashboard",
        "description": "what hangs in the hall",
        "publish": ["dashboard/status"],
        "subscribe": ["iot/device/+/telemetry/#"],
        "broker_ids": [1],
        "expires_at": "2099-12-31T23:59:59Z",
    },
    "ServiceAccountChange": {"subscribe": ["iot/device/#"], "broker_ids": None},
    "ServiceAccount": _ACCOUNT,
    "PasswordedServiceAccount": _PASSWORDED,
    "ServiceAccountPage": _page(_ACCOUNT),
    "AuditPage": _page(_AUDIT_LINE),
    "ServerKeyPage": _page(
        {
            "id": 1,
            "is_active": True,
            "is_in_ring": True,
            "devices": 1,
            "disabled_devices": 0,
        }
    ),
    "Supposition": {"mqtt_broker_id": None, "default_broker_id": 1},
    "Explanation": _EXPLANATION,
    "DeviceExplanation": {
        **_EXPLANATION,
        "uuid": UUID,
        "told_broker_ids": [1],
        "told_at": MOMENT,
    },
    "Liveness": {"status": "ok"},
    "Readiness": {
        "status": "ready",
        "checks": {"registry": "serving", "broker": "serving"},
    },
}

# Files that operations take, by their names and by the media type.
FILES = {
    "import_devices": {
        "application/x-ndjson": json.dumps({"uuid": UUID, "fleet_id": "demo"}) + "\n",
        "text/csv": f"uuid,fleet_id,mqtt_username\n{UUID},demo,\n",
    },
    "import_brokers": {
        "application/x-ndjson": json.dumps({"name": "Second", "host": "h", "port": 1883}) + "\n",
        "text/csv": "name,host,port\nSecond,mqtt.example.com,1883\n",
    },
    "upload_job_rows": {
        "application/x-ndjson": json.dumps({"uuid": UUID, "mqtt_broker_id": 1}) + "\n",
        "text/csv": f"uuid,mqtt_broker_id\n{UUID},1\n",
    },
}


def _import_of(subject: str) -> str:
    row = {"line": 1, "subject": subject, "outcome": "created"}
    end = {"complete": True, "dry_run": False, "created": 1, "existing": 0, "refused": 0}
    return "".join(f"{json.dumps(line)}\n" for line in (row, end))


# Answers that are not one piece of JSON, by the names of their operations.
TEXTS = {
    "import_devices": _import_of(UUID),
    "import_brokers": _import_of("Second"),
    "export_audit_log": "".join(
        f"{json.dumps(line)}\n" for line in (_AUDIT_LINE, {"complete": True, "lines": 1})
    ),
}
