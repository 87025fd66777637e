"""Calls from one service to another."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2
from prometheus_client import Histogram

from chassis.errors import DeadlineExceeded, MooringError, Unavailable, from_rpc
from chassis.identities import UNTRUSTED_SERVICE
from chassis.log import request_id
from chassis.reloaded_channel import ReloadedChannel
from chassis.tickets import TICKET_INVALID
from chassis.trust import Credentials

log = structlog.get_logger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")

# The called service gets a slightly earlier deadline than this service has, so that its error, with
# a reason, arrives before this service's own timeout.
HOP_MARGIN_S = 0.05

SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        # A replica that reports NOT_SERVING gets no more calls, even before it closes connections.
        "healthCheckConfig": {"serviceName": ""},
    }
)


CALL_SECONDS = Histogram(
    "mooring_call_seconds",
    "How long calls to other services took, by method and status",
    ["method", "code"],
)


class ServiceClient:
    """Calls any replica of another service."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        """`address` is a gRPC target: `host:port`, `dns:///name:port` or `ipv4:a:p,b:q`.

        Raises `SystemExit` for a list of addresses with TLS, because gRPC would require the whole
        list as the name in each certificate.
        """
        if credentials.client is not None and "," in address:
            raise SystemExit(
                f"{address}: under TLS several addresses need one name, as in dns:///name:port"
            )
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", SERVICE_CONFIG),
            # A service that restarts is found within a second instead of the default two minutes.
            # The second option is, despite its name, how long connecting may take. If it were a
            # second too, the client could never connect to a busy server.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # A server that hangs or has disappeared is noticed within nine seconds, before the
            # deadlines of requests. Without these options, gRPC's own ping replaces a keepalive
            # ping and may take a minute, and after two pings without a call the next one waits a
            # minute. Servers accept a ping each second.
            ("grpc.keepalive_time_ms", 6_000),
            ("grpc.keepalive_timeout_ms", 3_000),
            ("grpc.http2.ping_timeout_ms", 3_000),
            ("grpc.http2.max_pings_without_data", 0),
            # A name is resolved again when a connection ends. By default that happens at most every
            # thirty seconds, and meanwhile calls fail if all known replicas have stopped.
            ("grpc.dns_min_time_between_resolutions_ms", 1_000),
            ("grpc.max_receive_message_length", -1),
            # This channel has its own connections. By default gRPC shares connections between the
            # channels of a process.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self.channel = _channel(address, credentials, options)
        # Connects to one replica, healthy or not. If no replica is healthy, `channel` cannot ask
        # one for the reason.
        self.any_replica = _channel(address, credentials, options[1:])
        self._credentials = credentials

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        deadline: float,
        ticket: bytes | None = None,
    ) -> Response:
        """Calls `method` of a stub on `self.channel`.

        `deadline` is a time of the running loop's clock. Raises the `MooringError` that the
        service raised.
        """
        timeout_s = deadline - asyncio.get_running_loop().time() - HOP_MARGIN_S
        if timeout_s <= 0:
            raise DeadlineExceeded("the deadline passed before the call")
        begun = time.perf_counter()
        try:
            response = await method(
                request,
                timeout=timeout_s,
                metadata=self._credentials.metadata(ticket, request_id.get()),
            )
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure)
        else:
            _observe(request, grpc.StatusCode.OK, begun)
            return response
        _observe(request, error.code, begun)
        raise self._heard(error)

    async def stream(
        self,
        method: "grpc.aio.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        *,
        deadline: float,
        ticket: bytes | None = None,
    ) -> AsyncIterator[Response]:
        """The responses of a method of a stub on `self.channel`, as they arrive. `deadline` and
        errors are as for `call`.
        """
        timeout_s = deadline - asyncio.get_running_loop().time() - HOP_MARGIN_S
        if timeout_s <= 0:
            raise DeadlineExceeded("the deadline passed before the call")
        begun = time.perf_counter()
        metadata = self._credentials.metadata(ticket, request_id.get())
        call = method(request, timeout=timeout_s, metadata=metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure)
        else:
            _observe(request, grpc.StatusCode.OK, begun)
            return
        finally:
            # If the responses are not read to their end, the service stops.
            call.cancel()
        _observe(request, error.code, begun)
        raise self._heard(error)

    def _heard(self, error: MooringError) -> MooringError:
        """The error to raise for an error of the service."""
        if error.reason not in (UNTRUSTED_SERVICE, TICKET_INVALID):
            return error
        # The other service has refused this service. The client has sent a valid key, so it must
        # not get an error about its own key.
        log.error("another service does not trust this service")
        return Unavailable("the service is not available", reason=UNTRUSTED_SERVICE)

    async def is_serving(self, name: str = "", *, timeout_s: float = 1.0) -> bool:
        """Whether the service reports that it, or its part `name`, is healthy now."""
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            response = await check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Ends the channels; calls under way are cancelled."""
        await self.channel.close()
        await self.any_replica.close()


def _channel(
    address: str, credentials: Credentials, options: list[tuple[str, Any]]
) -> grpc.aio.Channel:
    if credentials.client is None:
        return grpc.aio.insecure_channel(address, options)
    return ReloadedChannel(address, credentials.client, options)


def _observe(request: Any, code: grpc.StatusCode, begun: float) -> None:
    """Observes the duration. The method's name comes from the request's, as the lint requires."""
    method = request.DESCRIPTOR.full_name.removesuffix("Request")
    CALL_SECONDS.labels(method, code.name).observe(time.perf_counter() - begun)
