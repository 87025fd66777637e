"""An attacker reports failures of brokers, to have them taken for degraded."""

from mooring.registry.v1 import reports_pb2 as pb
from mooring.registry.v1 import reports_pb2_grpc

from broker_service.brokers.device_counts.report_store import ReportStore
from chassis.database import engine_of
from domain.reports import MIN_DEVICES
from tests.integration.registry_service.reports.test_reports import (
    counted,
    report,
    reports_of,
    told,
)
from tests.stack import Stack

NONE = {"connected": 0, "failing": 0, "failing_fleets": 0}


async def test_a_device_reports_only_for_itself(stack: Stack) -> None:
    url = await told(stack, "one")
    await stack.register("other", deviceApiKey="another-api-key")
    for uuid, api_key in (("other", "test-api-key"), ("one", "wrong-key"), ("none", "wrong-key")):
        answer = await report(stack, uuid, "failed", url, api_key)
        assert (answer.status_code, answer.json()["reason"]) == (401, "DEVICE_UNAUTHENTICATED")
    # A provisioning key and an administrator's token are no device API keys.
    for secret in (stack.provisioning_key, stack.admin_token):
        assert (await report(stack, "one", "failed", url, secret)).status_code == 401
    assert (await stack.http.post("/api/v1/device/one/mqtt/report", json={})).status_code == 401
    assert await counted(stack, stack.default_broker_id) == NONE
    assert await reports_of(stack, "one") == await reports_of(stack, "other") == []


async def test_one_in_a_batch_does_not_report_for_its_neighbours(stack: Stack) -> None:
    url = await told(stack, "one")
    await told(stack, "other")
    reports = [
        pb.ConnectionReport(uuid=uuid, device_api_key=key, state=state, broker=url)
        for uuid, key, state in (
            ("one", "test-api-key", "failed"),
            ("other", "wrong-api-key", "failed"),
            ("other", "test-api-key", "down"),
            ("a/b", "test-api-key", "failed"),
            ("one", "test-api-key", "connected"),
        )
    ]
    answer = await stack.registry.ask(
        reports_pb2_grpc.ReportServiceStub,
        "ReportConnections",
        pb.ReportConnectionsRequest(reports=reports),
    )
    assert [outcome.error.reason for outcome in answer.outcomes] == [
        "",
        "DEVICE_UNAUTHENTICATED",
        "INVALID_INPUT",
        "INVALID_INPUT",
        "",
    ]
    assert {item["state"] for item in await reports_of(stack, "one")} == {"connected", "failed"}
    assert await reports_of(stack, "other") == []


async def test_a_broker_that_the_device_was_not_told_is_never_counted(stack: Stack) -> None:
    victim_id = await stack.create_broker("Victim", host="victim.example.com")
    await told(stack, "one")
    for url in (
        "mqtt://victim.example.com:1883",
        f"mqtt://invented.example.com:{victim_id}",
        str(victim_id),
        "' OR true --",
    ):
        assert (await report(stack, "one", "failed", url)).status_code == 200
        assert [item["broker_id"] for item in await reports_of(stack, "one")] == [None]
        assert await counted(stack, victim_id) == NONE
        stack.database.execute("DELETE FROM device_reports")


async def test_the_devices_of_one_customer_do_not_degrade_a_broker(stack: Stack) -> None:
    engine = engine_of(stack.database.url("mooring_broker"))
    try:
        for n in range(2 * MIN_DEVICES):
            url = await told(stack, f"invented-{n}")
            assert (await report(stack, f"invented-{n}", "failed", url)).status_code == 200
        assert (await counted(stack, stack.default_broker_id))["failing"] == 2 * MIN_DEVICES
        assert await ReportStore(engine).out_of_reach() == frozenset()
    finally:
        await engine.dispose()
