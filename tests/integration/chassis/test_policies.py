"""Which caller and which role may call every gRPC method and every HTTP route."""

from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from litestar import Litestar, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.testing import AsyncTestClient
from mooring.registry.v1 import tokens_pb2

import gateway.app
from chassis.direct_http import Head
from chassis.errors import REASON
from chassis.identities import PROVABLE
from chassis.servicers import service_of
from chassis.trust import Access, Actor, Services, WithinFleets, access_of, callers_of
from gateway.access import policy_is_stated
from gateway.administration import brokers
from gateway.device_routes import DeviceRoutes
from gateway.problems import HANDLERS
from tests.integration.chassis.test_guarded_server import POLICIES, generated, servicers_of
from tests.integration.gateway.test_document import document_of, operations_of, sending
from tests.stack import Stack

ROLES = {
    Access.VIEWER: tokens_pb2.ROLE_VIEWER,
    Access.OPERATOR: tokens_pb2.ROLE_OPERATOR,
    Access.ADMIN: tokens_pb2.ROLE_ADMIN,
}
# With these reasons a call is refused before its content is read.
TURNED_AWAY = {"UNTRUSTED_SERVICE", "TICKET_INVALID", "UNAUTHENTICATED", "FORBIDDEN", "NO_POLICY"}


# The full name of every method of every service in the protos.
METHODS = sorted(
    f"/{service.full_name}/{method.name}" for service in generated() for method in service.methods
)


def test_every_service_has_one_servicer() -> None:
    for service in generated():
        [servicer] = servicers_of(service)
        assert service_of(servicer) is service


def test_a_class_that_serves_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="Nothing"):
        service_of(type("Nothing", (), {}))


def test_every_method_states_a_policy() -> None:
    assert METHODS
    assert sorted(POLICIES) == METHODS
    assert Access.OPEN not in POLICIES.values()


async def turned_away(stack: Stack, method: str, metadata: Mapping[str, str | bytes]) -> str:
    """The reason for which a caller was not admitted; "" if it was, however the call ended."""
    peer = stack.broker if method.startswith("/mooring.broker") else stack.registry
    call: Any = peer.channel.unary_unary(method)
    try:
        await call(b"", timeout=10, metadata=tuple(metadata.items()))
    except grpc.aio.AioRpcError as error:
        reason = dict(error.trailing_metadata() or ()).get(REASON, "")
        return reason if reason in TURNED_AWAY else ""
    return ""


async def test_every_method_admits_the_callers_of_its_policy(stack: Stack) -> None:
    restricted = Actor("walker", Access.OPERATOR, fleets=frozenset({"demo"}))
    actors = [Actor("walker", role) for role in ROLES]
    for method in METHODS:
        policy = POLICIES[method]
        assert await turned_away(stack, method, {}) == "UNTRUSTED_SERVICE", method
        for caller in PROVABLE:
            may_call = caller in callers_of(policy)
            # Each caller with a ticket of every role, and without a ticket.
            for actor in (None, restricted, *actors):
                if not may_call:
                    expected = "UNTRUSTED_SERVICE"
                elif isinstance(policy, Services):
                    expected = ""
                elif actor is None:
                    expected = "TICKET_INVALID"
                elif actor.role < access_of(policy):
                    expected = "FORBIDDEN"
                else:
                    # Tokens that are restricted to fleets are served only where the policy says so.
                    is_served = actor.fleets is None or isinstance(policy, WithinFleets)
                    expected = "" if is_served else "FORBIDDEN"
                found = await turned_away(stack, method, stack.metadata(actor, caller))
                assert found == expected, (method, caller, actor)


def test_each_method_is_for_the_callers_that_need_it() -> None:
    """Lists the callers a second time, so that no method is opened to another one by mistake."""
    others = {
        method: sorted(callers_of(policy))
        for method, policy in POLICIES.items()
        if isinstance(policy, Services)
    }
    registration = "/mooring.registry.v1.RegistrationService"
    assert {
        method: callers for method, callers in others.items() if not method.startswith(registration)
    } == {
        "/mooring.broker.v1.ResolutionService/ResolveBroker": ["registry", "resolver", "shared"],
        "/mooring.broker.v1.ResolutionService/ResolveBrokers": ["registry", "resolver", "shared"],
        "/mooring.broker.v1.ManagementService/ListManagedBrokers": ["enforcement"],
        "/mooring.registry.v1.EnforcementService/AwaitHeld": ["gateway"],
        "/mooring.registry.v1.ReportService/ReportConnections": ["gateway", "shared"],
        "/mooring.registry.v1.SystemService/ChangesSince": ["gateway"],
        "/mooring.registry.v1.SystemService/ReportProcess": ["gateway"],
        "/mooring.registry.v1.SessionService/AuthenticateSession": ["gateway"],
        "/mooring.registry.v1.SessionService/AuthenticateSignInCode": ["gateway"],
        "/mooring.registry.v1.TokenService/AuthenticateToken": ["gateway"],
        "/mooring.registry.v1.TokenService/ListFingerprints": ["gateway"],
    }
    for method, callers in others.items():
        if method.startswith(registration):
            assert set(callers) <= {"gateway", "shared"}, method


def routes_served() -> list[HTTPRouteHandler]:
    """Every route that Litestar serves, also the undocumented ones."""
    return [
        handler
        for route in gateway.app.served().routes
        for handler in getattr(route, "route_handlers", [])
        # Litestar adds OPTIONS to each path; gateway/http_adapter.py answers that itself.
        if isinstance(handler, HTTPRouteHandler) and handler.http_methods != {"OPTIONS"}
    ]


def test_every_route_states_a_policy() -> None:
    open_ones = set()
    for handler in routes_served():
        policy = handler.opt.get("access")
        assert isinstance(policy, Access | WithinFleets), handler.paths
        access = access_of(policy)
        if access is Access.OPEN:
            open_ones |= handler.paths
        else:
            assert access in ROLES, handler.paths
    # These routes reveal nothing about devices and operators.
    version = "/docs/5.35.0/{name:str}"
    assert open_ones == {
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/",
        "/assets/{of_version:str}/{name:str}",
        "/sign-in",
        "/sign-in/{code:str}",
        "/docs",
        "/docs/start.js",
        version,
    }
    devices = DeviceRoutes(calls=None, limits=None)  # type: ignore[arg-type]
    for path in (b"register", b"d/mqtt", b"d/mqtt/report", b"d/credentials/rotate"):
        head = Head(b"POST", b"/api/v1/device/" + path, b"", [], None)
        found = devices.find(head)
        assert found is not None
        assert isinstance(found.route.access, Access)


async def test_a_route_without_a_policy_is_refused(stack: Stack) -> None:
    @get("/forgotten")
    async def forgotten() -> dict[str, str]:
        return {"secret": "leaked"}

    app = Litestar(
        [Router("/api/v1", route_handlers=[forgotten])],
        guards=[policy_is_stated],
        exception_handlers=HANDLERS,
    )
    async with AsyncTestClient(app) as client:
        refused = await client.get(
            "/api/v1/forgotten", headers={"Authorization": f"Bearer {stack.admin_token}"}
        )
    assert (refused.status_code, refused.json()["reason"]) == (403, "NO_POLICY")


async def test_a_policy_that_gets_lost_closes_the_route(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(brokers.list_brokers.opt, "access")
    # The routes are cached; this gateway must build its own, so that others keep the policy.
    monkeypatch.setattr(gateway.app, "served", gateway.app.served.__wrapped__)
    async with gateway.__main__.running(stack.gateway_config()) as url:
        headers = {"Authorization": f"Bearer {stack.admin_token}"}
        refused = await stack.http.get(f"{url}/api/v1/brokers", headers=headers)
        assert (refused.status_code, refused.json()["reason"]) == (403, "NO_POLICY")


async def test_every_route_admits_the_roles_of_its_policy(stack: Stack) -> None:
    stated = {handler.handler_name: access_of(handler.opt["access"]) for handler in routes_served()}
    tokens = {}
    for role, name in ROLES.items():
        request = tokens_pb2.CreateTokenRequest(name=f"a {role.name}", role=name)
        tokens[role] = (await stack.registry.tokens("CreateToken", request)).secret
    walked = 0
    for template, method, operation in operations_of(await document_of(stack)):
        if operation.get("security") != [{"apiToken": []}]:
            continue
        walked += 1
        name = operation["operationId"].removesuffix("_put").removesuffix("_patch")
        needed = stated[name]
        assert f"Needs the role `{needed.name.lower()}`." in operation["description"], name
        path = template
        for parameter in operation.get("parameters", ()):
            # No resource has this id, so a request that is admitted deletes nothing.
            value = "2000000000" if parameter["schema"].get("type") == "integer" else "0" * 32
            path = path.replace(f"{{{parameter['name']}}}", value)
        anonymous = await stack.http.request(method.upper(), path, **sending(operation))
        assert (anonymous.status_code, anonymous.json()["reason"]) == (401, "UNAUTHENTICATED"), name
        for role, token in tokens.items():
            answer = await stack.http.request(method.upper(), path, **sending(operation, token))
            reason = answer.json()["reason"] if answer.status_code >= 400 else ""
            # If a request is refused before its role is checked, the test would prove nothing.
            assert answer.status_code not in (400, 413, 415, 429), (name, answer.text)
            was_let_in = reason != "FORBIDDEN"
            assert was_let_in is (role >= needed), (name, role, answer.text)
    assert walked > 20
