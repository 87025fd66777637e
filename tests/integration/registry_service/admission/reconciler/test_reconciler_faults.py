"""The enforcement loop while other parts fail, and after a restart."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from structlog.testing import capture_logs

from registry_service.admission.listener.answering import ANSWER_S
from registry_service.admission.listener.subject_cache import STALE_S
from registry_service.admission.reconciler.broker_reconciler import LOOK_AGAIN_S
from registry_service.admission.reconciler.dynamic_security import Actual
from registry_service.admission.reconciler.mosquitto_client import DynamicSecurity
from registry_service.errors import ControlUnreachable
from tests.dynamic_security import DynamicMosquitto
from tests.integration.registry_service.admission.reconciler.test_http_management import (
    LOGIN,
    Api,
    api,
)
from tests.integration.registry_service.admission.reconciler.test_reconciler import (
    PATIENCE_S,
    broker,
    login,
    managed,
    problem_of,
    reconciling,
    until_let_in,
    until_measured,
    until_said,
    until_state,
)
from tests.integration.registry_service.admission.reconciler.test_reconciler_limits import rounds
from tests.proxy import proxied
from tests.stack import Stack

__all__ = ["api", "broker"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)


def said(lines: list[Any]) -> set[str]:
    return {line["event"] for line in lines}


async def disabled_at_emqx(stack: Stack, api: Api) -> None:
    """Makes the default broker an EMQX, and disables one of its devices."""
    at = {"management": "emqx", "management_url": api.url}
    body = {**at, "username": LOGIN[0], "password": LOGIN[1]}
    path = f"/brokers/{stack.default_broker_id}"
    assert (await stack.admin("PATCH", path, json=body)).status_code == 200
    await login(stack, "one")
    await stack.admin("PATCH", "/devices/one", json={"is_active": False})


def term(stack: Stack) -> Any:
    return stack.database.execute("SELECT term FROM leases WHERE name = 'enforcement'")


async def test_a_frozen_broker_service_delays_no_revocation(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    logins = {f"d{n}": await login(stack, f"d{n}") for n in range(3)}
    async with proxied(f"grpc://127.0.0.1:{stack.broker_port}") as (proxy, url):
        through = {"broker_service_address": urlsplit(url).netloc, "enforcement_lease_s": 3}
        async with reconciling(stack, **through), reconciling(stack, **through):
            for one in logins.values():
                await until_let_in(broker, one, is_in=True)
            before = term(stack)
            proxy.lose()
            with capture_logs() as lines:
                await until(
                    lambda: (
                        "the list of managed brokers cannot be read from the broker "
                        "service" in said(lines)
                    )
                )
            loop = asyncio.get_running_loop()
            for uuid, one in logins.items():
                begun = loop.time()
                await stack.admin("PATCH", f"/devices/{uuid}", json={"is_active": False})
                await until_let_in(broker, one, is_in=False)
                assert loop.time() - begun < 2.5
                await rounds(stack, 2)
            assert term(stack) == before


async def test_an_error_of_the_database_is_no_problem_of_the_broker(
    stack: Stack, broker: DynamicMosquitto
) -> None:
    await managed(stack, broker)
    one = await login(stack, "one")
    with capture_logs() as lines:
        async with reconciling(stack, drift_check_s=0.5):
            await until_let_in(broker, one, is_in=True)
            await until_state(stack, "clients", 1)
            with psycopg.connect(stack.database.url("mooring")) as connection:
                # The table stays locked until a statement has timed out.
                connection.execute("LOCK TABLE device_counts IN ACCESS EXCLUSIVE MODE")
                await until(lambda: "a broker cannot be managed now" in said(lines))
                assert await problem_of(stack) == ""
            await stack.admin("PATCH", "/devices/one", json={"is_active": False})
            await until_let_in(broker, one, is_in=False)
            await until_state(stack, "clients", 0)
    assert "a broker is not in step" not in said(lines)


async def test_a_revocation_before_a_failure_has_taken_effect(
    stack: Stack, broker: DynamicMosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    await managed(stack, broker)
    one = await login(stack, "one")

    async def fails(_: DynamicSecurity) -> Actual:
        raise ControlUnreachable("it has gone meanwhile")

    async with reconciling(stack):
        await until_let_in(broker, one, is_in=True)
        monkeypatch.setattr(DynamicSecurity, "state", fails)
        await stack.admin("PATCH", "/devices/one", json={"is_active": False})
        await until_said(stack, "has gone meanwhile")
    found = stack.database.execute("SELECT done_at IS NOT NULL, failure FROM revocations")
    assert found == [(True, "")]


async def test_the_second_check_is_made_by_the_process_that_holds_the_lease(
    stack: Stack, api: Api
) -> None:
    await disabled_at_emqx(stack, api)

    def older(seconds: float) -> None:
        stack.database.execute(
            "UPDATE revocations SET done_at = done_at - make_interval(secs => %s)", seconds
        )

    def done_at() -> Any:
        return stack.database.execute("SELECT done_at FROM revocations")

    async with reconciling(stack):
        await until_measured(stack, 1)
        # The device was admitted just before it was disabled, and appears in the list only now.
        api.clients = {"c": "device_one", "d": "device_two"}
    async with reconciling(stack):
        await rounds(stack, 3)
        assert len(api.clients) == 2
        older(LOOK_AGAIN_S)
        before = done_at()
        await until(lambda: api.clients == {"d": "device_two"})
        # The same process makes no third check, and the API shows the time of the first one.
        api.clients["c"] = "device_one"
        await rounds(stack, 3)
        assert len(api.clients) == 2
        assert done_at() == before
    # After a restart, only recent revocations are checked again.
    older(300)
    async with reconciling(stack):
        await rounds(stack, 5)
        assert len(api.clients) == 2


async def test_a_second_check_that_fails_is_repeated(stack: Stack, api: Api) -> None:
    await disabled_at_emqx(stack, api)
    async with reconciling(stack):
        await until_measured(stack, 1)
        api.clients, api.fault = {"c": "device_one"}, (500, b"")
        stack.database.execute("UPDATE revocations SET done_at = done_at - interval '7 s'")
        await until_said(stack, "answers 500")
        api.fault = None
        await until(lambda: api.clients == {})
    assert stack.database.execute("SELECT failure FROM revocations") == [("",)]


def test_the_second_check_comes_after_the_last_answer_that_may_admit_the_client() -> None:
    assert LOOK_AGAIN_S > STALE_S + ANSWER_S
