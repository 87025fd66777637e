"""A gRPC server of ours: who may call, errors into statuses, health, an orderly end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from structlog.contextvars import bound_contextvars

from chassis.config import is_loopback
from chassis.errors import Internal, InvalidInput, MooringError, Unauthenticated, trailers_of
from chassis.trust import REQUEST_ID, Access, Credentials

log = structlog.get_logger(__name__)

# Health and reflection tell nothing that a caller must prove itself for.
OPEN_METHODS = (
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)
GRACE_S = 5.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# For a caller who named no deadline.
PATIENCE_S = 30.0

# Of grpcio's two classes only this one cannot be subscripted when the program runs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Context = grpc.aio.ServicerContext[Any, Any]


def deadline_of(context: Context) -> float:
    """When the caller stops waiting, as a time of the running loop's clock."""
    remaining_s = context.time_remaining()
    return asyncio.get_running_loop().time() + (PATIENCE_S if remaining_s is None else remaining_s)


class Frontier(grpc.aio.ServerInterceptor):
    """The one place where callers are let in and errors become statuses."""

    def __init__(self, credentials: Credentials, policies: Mapping[str, Access]) -> None:
        """`policies` says for each full method name what it asks; what is not in it is refused."""
        self._credentials = credentials
        self._policies = policies

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        """Wraps the method's handler; its bytes are decoded inside, so that a bad one is ours."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_METHODS):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._guarded(method, handler),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _guarded(self, method: str, handler: Handler) -> Callable[..., Awaitable[Any]]:
        access = self._policies.get(method)
        credentials = self._credentials
        behaviour = cast("Callable[..., Awaitable[Any]]", handler.unary_unary)
        decode = cast("Callable[[bytes], Any]", handler.request_deserializer)

        async def guarded(request: bytes, context: Context) -> Any:
            metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
            with bound_contextvars(request_id=str(metadata.get(REQUEST_ID, "")), method=method):
                try:
                    if access is None or behaviour is None:
                        raise Unauthenticated("this method has no policy", reason="NO_POLICY")
                    actor = credentials.admit(metadata, access)
                    if actor is None:
                        return await behaviour(decode(request), context)
                    with bound_contextvars(actor=actor.name):
                        return await behaviour(decode(request), context)
                except DecodeError:
                    error: MooringError = InvalidInput(
                        "the message cannot be decoded", reason="MALFORMED_MESSAGE"
                    )
                except MooringError as raised:
                    error = raised
                except Exception:
                    log.exception("a call failed unexpectedly")
                    error = Internal("internal error")
            return await context.abort(error.code, error.message, trailers_of(error))

        return guarded


class Health:
    """What a service says of itself: the whole under "", each thing it depends on by name."""

    def __init__(self) -> None:
        """Nothing is serving until it is said to be."""
        self._servicer = health.aio.HealthServicer()
        self._said: dict[str, bool] = {}

    def attach(self, server: grpc.aio.Server) -> None:
        """Answers `grpc.health.v1.Health` on `server`."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def say(self, name: str, *, is_serving: bool) -> None:
        """Sets one name's status; a change is logged."""
        if self._said.get(name) != is_serving:
            self._said[name] = is_serving
            log.info("health changed", about=name or "service", is_serving=is_serving)
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if is_serving else response.NOT_SERVING
        await self._servicer.set(name, status)

    async def leave(self) -> None:
        """Says NOT_SERVING for good."""
        await self._servicer.enter_graceful_shutdown()


@contextlib.asynccontextmanager
async def serving(
    *,
    host: str,
    port: int,
    credentials: Credentials,
    policies: Mapping[str, Access],
    services: Iterable[str],
    register: Callable[[grpc.aio.Server], None],
    health: Health,
    drain_s: float,
) -> AsyncIterator[int]:
    """Serves until the block ends, then drains; yields the port (a free one where `port` is 0).

    `register` adds the servicers; `services` are their full names, for reflection. `drain_s` is
    the time between saying NOT_SERVING and closing connections. Raises
    `SystemExit` when the port is taken, or when it is asked to leave loopback without TLS.
    """
    if credentials.server is None and not is_loopback(host):
        raise SystemExit(f"{host} can be reached from other machines: configure TLS_CERT_FILE")
    server = grpc.aio.server(
        interceptors=[Frontier(credentials, policies)],
        options=[
            # Shared by default: a second server on a taken port would start and say nothing.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
    )
    register(server)
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
