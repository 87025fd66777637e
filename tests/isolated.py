"""Two customers on one installation, and the names of each kind of object of the other one.

All text about the rival contains `rival`: every object of theirs that has a name is called so.
"""

import re
from dataclasses import dataclass
from typing import Any

import trustme

from tests.pools import make_pool
from tests.stack import Stack

NOT_THERE = "00000000-0000-4000-8000-000000000000"
# Fields that name one object, or several, at any place in a request.
NAMES_A_THING = re.compile(r"(^|_)(uuid|id)s?$")
# Fields that look like these, but name no object.
PLAIN_VALUES = {"allowed_uuids", "credential_key_id", "not_credential_key_id"}
# The object that each field names. The walks fail at a new path parameter or field until it is
# added here, with its value for another customer in `Customer`.
KINDS = {
    **dict.fromkeys(("uuid", "device_uuid"), "device"),
    **dict.fromkeys(("fleet_id", "fleet_ids"), "fleet"),
    **dict.fromkeys(("broker_id", "mqtt_broker_id", "default_broker_id"), "broker"),
    **dict.fromkeys(("allowed_broker_ids", "broker_ids"), "broker"),
    **dict.fromkeys(("active_broker_ids", "inactive_broker_ids", "to_broker_id"), "broker"),
    **dict.fromkeys(("pool_id", "default_pool_id", "not_pool_id"), "pool"),
    "backup_broker_id": "broker",
    **dict.fromkeys(("told_broker_id", "not_told_broker_id", "not_mqtt_broker_id"), "broker"),
    # The list of brokers takes them as `id` and `ids`.
    **dict.fromkeys(("id", "ids"), "broker"),
    "not_fleet_id": "fleet",
    **dict.fromkeys(("certificate_id", "ca_certificate_id"), "certificate"),
    **dict.fromkeys(("client_certificate_id", "replacement_id"), "certificate"),
    "job_id": "job",
    **dict.fromkeys(("key_id", "provisioned_by_key_id", "not_provisioned_by_key_id"), "key"),
    "token_id": "token",
    "secret_id": "secret",
    "account_id": "account",
    "revision": "revision",
    "region_id": "region",
}
# The object that a message's field `id` names, by service.
KIND_OF_ID = {
    "BrokerService": "broker",
    "FleetService": "fleet",
    "ProvisioningKeyService": "key",
    "PoolHistoryService": "pool",
    "PoolService": "pool",
    "PoolUserService": "pool",
    "RegionService": "region",
}


@dataclass(frozen=True)
class Customer:
    """One object of each kind of a customer."""

    things: dict[str, Any]
    token: str = ""

    def value(self, name: str, kind: str = "") -> Any:
        """The value of a field of this name for the customer's object."""
        found = self.things[kind or KINDS[name]]
        return [found] if name.endswith("s") else found


# As long as the rival's.
NOBODY = Customer(
    {
        "fleet": "ghost",
        "device": "ghost-1",
        "broker": 9,
        "pool": 9,
        "region": "ghost",
        "key": NOT_THERE,
        "token": NOT_THERE,
        "secret": NOT_THERE,
        "account": NOT_THERE,
        "certificate": 9,
        "job": 9,
        "revision": 9,
    }
)


async def customer(stack: Stack, name: str) -> Customer:
    """A fleet that is restricted to a broker, a key, an expected device that registered, a token.

    Also the objects that only an administrator makes for them: a certificate and a secret of the
    broker, a service account, a job.
    """
    broker_id = await stack.create_broker(f"{name} broker", host=f"{name}.example")
    fleet = {"id": name, "mqtt_broker_id": broker_id, "allowed_broker_ids": [broker_id]}
    await made(stack, "/fleets", fleet)
    uuid = f"{name}-1"
    key = await made(stack, "/provisioning-keys", {"fleet_id": name, "description": name})
    await made(stack, "/expected-devices", {"uuid": uuid, "fleet_id": name})
    registered = await stack.register(uuid, key=key["key"], deviceName=f"of {name}")
    assert registered.status_code == 201, registered.text
    token = {"name": name, "role": "operator", "fleet_ids": [name]}
    shown = await made(stack, "/tokens", token)
    ca = {"kind": "ca", "name": name, "pem": trustme.CA().cert_pem.bytes().decode()}
    job = {"kind": "assign", "mqtt_broker_id": broker_id, "filter": {"fleet_id": name}}
    await made(stack, "/regions", {"id": name, "mqtt_broker_id": broker_id})
    things = {
        "region": name,
        "fleet": name,
        "device": uuid,
        "broker": broker_id,
        "pool": make_pool(stack, broker_id, name=f"{name} pool"),
        "key": key["id"],
        "token": shown["id"],
        "certificate": (await made(stack, "/certificates", ca))["id"],
        "secret": (await made(stack, f"/brokers/{broker_id}/secrets"))["id"],
        "account": (await made(stack, "/service-accounts", {"username": name}))["id"],
        "job": (await made(stack, "/jobs", job))["id"],
        "revision": 1,
    }
    return Customer(things, shown["token"])


async def made(stack: Stack, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer to an administrator's POST."""
    answer = await stack.admin("POST", path, json=body)
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    return shown
