"""Whether the gateway is alive, and whether it can do its work."""

import asyncio
from typing import Any, ClassVar

import grpc
from grpc_health.v1 import health_pb2
from litestar import Request, Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from chassis.trust import Access
from gateway.context import context_of
from gateway.service_clients import HealthCheck, ServiceClients

PATIENCE_S = 1.0
SERVING = "serving"
UNREACHABLE = "unreachable"

# The names of health checks of both services; "" is the whole service
# (grpc/doc/health-checking.md).
ASKED_OF_REGISTRY = ("", "database", "broker_service")
ASKED_OF_BROKER = ("", "database")


class Liveness(Struct, frozen=True):
    """The process runs and answers."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"status": "ok"}

    status: str = "ok"


class Readiness(Struct, frozen=True):
    """`ready`; `degraded`: devices get answers, but some may be stopgaps; or `unavailable`."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "status": "ready",
        "checks": {"registry": "serving", "broker": "serving"},
    }

    status: str
    # "registry", "registry/database", …: serving, not_serving or unreachable.
    checks: dict[str, str]


def judge(checks: dict[str, str]) -> str:
    """The status of the gateway for these checks. Without the registry no device gets an answer."""
    if checks["registry"] != "serving":
        return "unavailable"
    return "ready" if all(status == "serving" for status in checks.values()) else "degraded"


@get(
    "/healthz",
    access=Access.OPEN,
    summary="Whether the process is alive",
)
async def healthz() -> Liveness:
    return Liveness()


@get(
    "/readyz",
    access=Access.OPEN,
    summary="Whether devices can be served",
    description="Degraded is still ready: devices get answers.",
    responses={503: ResponseSpec(Readiness, description="No device gets an answer.")},
)
async def readyz(request: Request[Any, Any, Any]) -> Response[Readiness]:
    context = context_of(request)
    checks = await _checks(context.services)
    status = "unavailable" if context.leaving.is_set() else judge(checks)
    headers = {"Cache-Control": "no-store"}
    if status == "unavailable":
        return Response(
            Readiness(status, checks), status_code=503, headers=headers | {"Retry-After": "1"}
        )
    return Response(Readiness(status, checks), headers=headers)


async def readiness(services: ServiceClients) -> tuple[bool, dict[str, str]]:
    """Whether the gateway is ready, for probes at the port of the metrics. Degraded counts as
    ready.
    """
    checks = await _checks(services)
    return judge(checks) != "unavailable", checks


async def _checks(services: ServiceClients) -> dict[str, str]:
    names = [("registry", name) for name in ASKED_OF_REGISTRY]
    names += [("broker", name) for name in ASKED_OF_BROKER]
    asked = {"registry": services.registry_health, "broker": services.broker_health}
    statuses = await asyncio.gather(*(_ask(asked[who], name) for who, name in names))
    return {
        f"{who}/{name}" if name else who: status
        for (who, name), status in zip(names, statuses, strict=True)
        if status
    }


ROUTES = Router("/", route_handlers=[healthz, readyz], tags=["health"])


async def _ask(checks: tuple[HealthCheck, HealthCheck], name: str) -> str:
    """The status in lower case; empty if the service has no check `name`.

    If no replica is healthy, it calls an unhealthy one.
    """
    healthy, any_replica = checks
    status = await _status(healthy, name)
    if status == UNREACHABLE:
        status = await _status(any_replica, name)
        if status == SERVING and not name:
            # The replica has become healthy meanwhile, but the channel does not use it yet.
            return UNREACHABLE
    return status


async def _status(check: HealthCheck, name: str) -> str:
    request = health_pb2.HealthCheckRequest(service=name)
    try:
        answer = await check(request, timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as error:
        if name and error.code() is grpc.StatusCode.NOT_FOUND:
            return ""
        return UNREACHABLE
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status).lower()
