"""The numbers of devices per broker, as the API answers them."""

from typing import Any

from mooring.broker.v1 import brokers_pb2

from chassis.database import engine_of
from registry_service.bulk.device_counts.store import DeviceCountStore
from tests.pools import make_pool
from tests.stack import Stack

INSERT = """
INSERT INTO devices (
    uuid, device_name, device_type, fleet_id, mqtt_broker_id, is_active, mqtt_username,
    mqtt_password_hash, credential_salt, credential_key_id, api_key_hash, provisioned_by_key_id,
    told_broker_ids, told_source
)
SELECT 'made-' || n, '', '', CASE WHEN n %% 2 = 0 THEN 'demo' ELSE 'ruled' END,
       CASE WHEN n %% 3 = 0 THEN %(pin)s::integer END, n %% 5 <> 0, '', '', '', 1, '',
       (SELECT id FROM provisioning_keys AS key
        WHERE key.fleet_id = CASE WHEN n %% 2 = 0 THEN 'demo' ELSE 'ruled' END),
       CASE WHEN n %% 4 <> 0 THEN ARRAY[%(told)s, 1] ELSE '{}' END,
       (ARRAY['device', 'rollout', 'fleet', 'default', 'region', ''])[1 + n %% 6]
FROM generate_series(1, 120) AS n
"""
COUNT = """
SELECT count(*) FILTER (WHERE device.mqtt_broker_id = broker.id),
       count(*) FILTER (WHERE device.mqtt_broker_id IS NULL AND fleet.mqtt_broker_id = broker.id),
       count(*) FILTER (WHERE broker.is_default AND device.mqtt_broker_id IS NULL
                        AND fleet.mqtt_broker_id IS NULL),
       count(*) FILTER (WHERE told_broker_ids[1] = broker.id AND told_source = 'device'),
       count(*) FILTER (WHERE told_broker_ids[1] = broker.id AND told_source = 'rollout'),
       count(*) FILTER (WHERE told_broker_ids[1] = broker.id AND told_source = 'fleet'),
       count(*) FILTER (WHERE told_broker_ids[1] = broker.id AND told_source = 'region'),
       count(*) FILTER (WHERE told_broker_ids[1] = broker.id AND told_source = 'default'),
       count(*) FILTER (WHERE told_broker_ids[1] = broker.id AND told_source = '')
FROM mqtt_broker_config AS broker
CROSS JOIN devices AS device JOIN fleets AS fleet ON fleet.id = device.fleet_id
WHERE device.is_active AND broker.id = %s
"""

COUNT_OF_FLEET = """
SELECT told_broker_ids[1], count(*) FROM devices
WHERE is_active AND mqtt_broker_id IS NULL AND fleet_id = %s
GROUP BY 1 ORDER BY 1 NULLS FIRST
"""


def flat(counts: dict[str, Any]) -> tuple[int, ...]:
    """The counts in the order of COUNT."""
    return (
        *(counts["assigned"][source] for source in ("device", "fleet", "default")),
        *(
            counts["told"][source]
            for source in ("device", "rollout", "fleet", "region", "default", "unknown")
        ),
    )


async def answered(stack: Stack) -> dict[int, dict[str, Any]]:
    """The counts of each broker; the list and the broker itself must agree."""
    found: dict[int, dict[str, Any]] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = (await stack.admin("GET", f"/device-counts?limit=2&cursor={cursor}")).json()
        for counts in page["items"]:
            alone = await stack.admin("GET", f"/brokers/{counts['broker_id']}/device-counts")
            # Reports are counted for one broker only.
            assert alone.json()["reported"]
            assert {**alone.json(), "reported": None} == counts
            assert flat(counts) == stack.database.execute(COUNT, counts["broker_id"])[0]
            found[counts["broker_id"]] = counts
        cursor = page["next_cursor"]
    for (fleet,) in stack.database.execute("SELECT id FROM fleets"):
        of_fleet = (await stack.admin("GET", f"/fleets/{fleet}/device-counts")).json()
        told = [(told["mqtt_broker_id"], told["devices"]) for told in of_fleet["told"]]
        assert told == stack.database.execute(COUNT_OF_FLEET, fleet)
        assert of_fleet["devices"] == sum(devices for _, devices in told)
    return found


async def test_devices_are_counted_by_their_assigned_and_by_their_notified_broker(
    stack: Stack,
) -> None:
    own, pinned = await stack.create_broker("own"), await stack.create_broker("pinned")
    await stack.create_fleet("ruled", mqtt_broker_id=own)
    key = await stack.create_key(fleet_id="ruled")
    stack.database.execute(INSERT.replace("%(pin)s", str(pinned)).replace("%(told)s", str(own)))
    await stack.register("one")
    await stack.register("two", key=key)
    counts = await answered(stack)
    assert list(counts) == [stack.default_broker_id, own, pinned]
    assert counts[stack.default_broker_id]["assigned"] == {"device": 0, "fleet": 0, "default": 33}
    assert counts[stack.default_broker_id]["told"]["default"] == 1
    assert counts[own]["assigned"] == {"device": 0, "fleet": 33, "default": 0}
    assert counts[pinned]["assigned"] == {"device": 32, "fleet": 0, "default": 0}
    some = [("broker_id", wanted) for wanted in (pinned, own, 4711)]
    page = (await stack.admin("GET", "/device-counts", params=[*some, ("limit", 1)])).json()
    assert page["items"] == [counts[own]]
    rest = [*some, ("cursor", page["next_cursor"])]
    assert (await stack.admin("GET", "/device-counts", params=rest)).json() == {
        "items": [counts[pinned]],
        "next_cursor": None,
        # This number counts all devices, with and without a broker.
        "devices": page["devices"],
    }
    [active] = stack.database.execute("SELECT count(*) FROM devices WHERE is_active")
    assert (page["devices"],) == active
    by_told = await stack.admin("GET", "/device-counts", params=[*some, ("order", "told")])
    told = [sum(one["told"].values()) for one in by_told.json()["items"]]
    assert told == sorted(told, reverse=True)
    assert len(told) == len({own, pinned})
    stale = {"order": "told", "cursor": "IjEgeCI="}
    assert (await stack.admin("GET", "/device-counts", params=stale)).status_code == 422
    for wrong in ("x", "0", 2**31, 2**70):
        refused = await stack.admin("GET", "/device-counts", params={"broker_id": wrong})
        assert (refused.status_code, refused.json()["field"]) == (422, "broker_id")
    many = [("broker_id", 7)] * 501
    assert (await stack.admin("GET", "/device-counts", params=many)).status_code == 422

    engine = engine_of(stack.database.url("mooring_registry"))
    for _ in range(2):
        assert await DeviceCountStore(engine).fold(5)
        assert await answered(stack) == counts
    await engine.dispose()

    await stack.broker.brokers("SetDefaultBroker", brokers_pb2.SetDefaultBrokerRequest(id=own))
    moved = await answered(stack)
    assert moved[own]["assigned"] == {"device": 0, "fleet": 33, "default": 33}
    assert moved[stack.default_broker_id]["assigned"]["default"] == 0
    await stack.admin("DELETE", "/devices/one")
    await answered(stack)
    missing = await stack.admin("GET", "/brokers/4711/device-counts")
    assert (missing.status_code, missing.json()["reason"]) == (404, "BROKER_NOT_FOUND")
    missing = await stack.admin("GET", "/fleets/nowhere/device-counts")
    assert (missing.status_code, missing.json()["reason"]) == (404, "FLEET_NOT_FOUND")


async def test_devices_of_a_fleet_with_a_pool_do_not_get_the_default(stack: Stack) -> None:
    await stack.register("one")
    path = f"/brokers/{stack.default_broker_id}/device-counts"
    assert (await stack.admin("GET", path)).json()["assigned"]["default"] == 1
    pool = make_pool(stack, stack.default_broker_id)
    await stack.admin("PATCH", "/fleets/demo", json={"pool_id": pool})
    assert (await stack.admin("GET", path)).json()["assigned"]["default"] == 0
