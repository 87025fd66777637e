"""A gRPC server: authenticates callers, turns errors into statuses, reports health, and stops in
order.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Histogram

from chassis import isolation
from chassis import log as logs
from chassis.config import is_loopback
from chassis.errors import Internal, InvalidInput, MooringError, Unauthenticated, trailers_of
from chassis.identities import caller as calling
from chassis.probes import Readiness
from chassis.refusals import Refusals
from chassis.servicers import policy_of, service_of
from chassis.tickets import ticket
from chassis.trust import (
    REQUEST_ID,
    Credentials,
    Policy,
    Services,
    callers_of,
    require_caller,
    role,
)

log = structlog.get_logger(__name__)

RPC_SECONDS = Histogram(
    "mooring_rpc_seconds", "How long calls took, by method and status", ["method", "code"]
)
GRACE_S = 5.0
MAX_CONNECTION_AGE_MS = 60_000
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# The time for a call without a deadline.
PATIENCE_S = 30.0

# This class of grpcio cannot be subscripted at run time.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = grpc.aio.ServicerContext[Any, Any]


def deadline_of(context: Context) -> float:
    """The deadline of the call, as a time of the running loop's clock."""
    remaining_s = context.time_remaining()
    return asyncio.get_running_loop().time() + (PATIENCE_S if remaining_s is None else remaining_s)


class GuardedServer:
    """Checks callers, and turns errors into statuses.

    It wraps each method of a servicer once. An interceptor of gRPC would run for every call, and
    take several percent of the time of a short call.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        credentials: Credentials,
        refusals: Refusals | None = None,
    ) -> None:
        """`refusals` records refused calls."""
        self._server = server
        self._credentials = credentials
        self._refusals = refusals

    def add(self, servicer: object) -> str:
        """Serves all methods of the servicer's service. Returns the service's full name.

        Only callers that its policy names may call a method; without a policy, no caller may.
        Requests are decoded inside, so that malformed bytes give an error of Mooring's tree.
        """
        service = service_of(type(servicer))
        handlers: dict[str, Handler] = {}
        for method in service.methods:
            behaviour = getattr(servicer, method.name)
            decode = GetMessageClass(method.input_type).FromString
            name = f"/{service.full_name}/{method.name}"
            encode = GetMessageClass(method.output_type).SerializeToString
            if method.server_streaming:
                handlers[method.name] = grpc.unary_stream_rpc_method_handler(
                    self._guarded_stream(name, behaviour, decode), response_serializer=encode
                )
            else:
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                    self._guarded(name, behaviour, decode), response_serializer=encode
                )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service.full_name, handlers)]
        )
        return str(service.full_name)

    def _guarded(
        self, method: str, behaviour: Callable[..., Awaitable[Any]], decode: Callable[[bytes], Any]
    ) -> Callable[..., Awaitable[Any]]:
        admit = self._admission(method, policy_of(behaviour))
        succeeded = RPC_SECONDS.labels(method, grpc.StatusCode.OK.name)

        async def guarded(request: bytes, context: Context) -> Any:
            begun = time.perf_counter()
            try:
                admit(context)
                response = await behaviour(decode(request), context)
            except Exception as raised:  # noqa: BLE001 - every error becomes a status
                error = _told(raised)
            else:
                succeeded.observe(time.perf_counter() - begun)
                return response
            self._note(method, error, partial(decode, request), begun, context)
            return await context.abort(error.code, error.message, trailers_of(error))

        return guarded

    def _guarded_stream(
        self,
        method: str,
        behaviour: Callable[..., AsyncGenerator[Any, None]],
        decode: Callable[[bytes], Any],
    ) -> Callable[..., AsyncIterator[Any]]:
        admit = self._admission(method, policy_of(behaviour))
        succeeded = RPC_SECONDS.labels(method, grpc.StatusCode.OK.name)

        async def guarded(request: bytes, context: Context) -> AsyncIterator[Any]:
            begun = time.perf_counter()
            try:
                admit(context)
                # A client that leaves cancels this task, and with it what the method waits for.
                async with contextlib.aclosing(behaviour(decode(request), context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as raised:  # noqa: BLE001 - likewise
                error = _told(raised)
            else:
                succeeded.observe(time.perf_counter() - begun)
                return
            self._note(method, error, partial(decode, request), begun, context)
            await context.abort(error.code, error.message, trailers_of(error))

        return guarded

    def _admission(self, method: str, policy: Policy | None) -> Callable[[Context], None]:
        """A function that admits the caller of `method`. It raises the errors of authentication."""
        allowed = callers_of(policy) if policy is not None else frozenset()
        credentials = self._credentials

        def admit(context: Context) -> None:
            metadata = dict(context.invocation_metadata() or ())
            # Each call is a separate task with its own context.
            logs.request_id.set(str(metadata.get(REQUEST_ID, "")))
            logs.method.set(method)
            if policy is None:
                raise Unauthenticated("this method has no policy", reason="NO_POLICY")
            caller = credentials.caller_of(metadata, context)
            calling.set(caller)
            require_caller(caller, allowed)
            if not isinstance(policy, Services):
                actor, shown = credentials.actor_of(metadata, caller)
                ticket.set(shown)
                logs.actor.set(actor.name)
                logs.actor_id.set(actor.id)
                actor.require(policy)
                isolation.fleets.set(actor.fleets)
                role.set(actor.role)

        return admit

    def _note(
        self,
        method: str,
        error: MooringError,
        decode: Callable[[], Any],
        begun: float,
        context: Context,
    ) -> None:
        RPC_SECONDS.labels(method, error.code.name).observe(time.perf_counter() - begun)
        if self._refusals is not None:
            self._refusals.note(method, error, decode, context.peer())


def _told(raised: Exception) -> MooringError:
    """The error that the caller gets. What is not of Mooring's tree stays in the log."""
    if isinstance(raised, MooringError):
        return raised
    if isinstance(raised, DecodeError):
        return InvalidInput("the message cannot be decoded", reason="MALFORMED_MESSAGE")
    log.error("a call failed unexpectedly", exc_info=raised)
    return Internal("internal error")


class Health:
    """The health of a service: the whole service under "", and each of its dependencies by name."""

    def __init__(self) -> None:
        """All names are NOT_SERVING until they are set."""
        self._servicer = health.aio.HealthServicer()
        self._said: dict[str, bool] = {}

    def attach(self, server: grpc.aio.Server) -> None:
        """Answers `grpc.health.v1.Health` on `server`."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def say(self, name: str, *, is_serving: bool) -> None:
        """Sets the status of a name; logs a change."""
        if self._said.get(name) != is_serving:
            self._said[name] = is_serving
            log.info("health changed", about=name or "service", is_serving=is_serving)
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if is_serving else response.NOT_SERVING
        await self._servicer.set(name, status)

    async def readiness(self) -> Readiness:
        """The same state, for probes by HTTP."""
        checks = {
            name or "service": "serving" if is_serving else "not_serving"
            for name, is_serving in self._said.items()
        }
        return self._said.get("", False), checks

    async def leave(self) -> None:
        """Sets NOT_SERVING for ever."""
        await self._servicer.enter_graceful_shutdown()


@contextlib.asynccontextmanager
async def serving(
    *,
    host: str,
    port: int,
    credentials: Credentials,
    servicers: Iterable[object],
    health: Health,
    drain_s: float,
    refusals: Refusals | None = None,
) -> AsyncIterator[int]:
    """Serves until the block ends, then stops in order. Yields the port, which is any free port if
    `port` is 0. The policies of `servicers` are enforced. All callers may use health and
    reflection, which reveal nothing secret. `drain_s` is the time between NOT_SERVING and closing
    connections. Raises `SystemExit` if the port is taken, or if it would listen beyond loopback
    without TLS.
    """
    if credentials.server is None and not is_loopback(host):
        raise SystemExit(f"{host} can be reached from other machines: configure TLS_CERT_FILE")
    server = grpc.aio.server(
        options=[
            # By default ports are shared: a second server on a taken port would start without an
            # error.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            # Connections end after some time, because clients then resolve the name again and find
            # added replicas.
            ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
            ("grpc.max_connection_age_grace_ms", 35_000),
        ],
    )
    guarded = GuardedServer(server, credentials, refusals)
    services = [guarded.add(servicer) for servicer in servicers]
    health.attach(server)
    reflection.enable_server_reflection(
        [*services, "grpc.health.v1.Health", reflection.SERVICE_NAME], server
    )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials.server is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials.server)
    except RuntimeError:
        raise SystemExit(f"{address} cannot be bound: is the port taken?") from None
    await server.start()
    log.info("serving", address=address, port=bound)
    try:
        yield bound
    finally:
        await health.leave()
        await asyncio.sleep(drain_s)
        await server.stop(GRACE_S)
