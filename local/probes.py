"""Checks of the machine and of the services."""

import json
import socket
from http.client import HTTPConnection, HTTPException

import grpc
from grpc_health.v1 import health_pb2

from local.errors import CannotRun
from local.services import HOST

ANSWER_S = 1.0


def demand_free(setting: str, port: int) -> None:
    """Raises `CannotRun` with the setting if no process could listen on `port`."""
    with socket.socket() as attempt:
        # As servers do, so that connections of a run that has just ended are no obstacle.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
            attempt.listen()
        except PermissionError:
            raise CannotRun(f"{setting}: port {port} is not allowed to you") from None
        except OSError:
            raise CannotRun(f"{setting}: port {port} is taken by another process") from None


def is_listening(port: int) -> bool:
    """Whether a process listens on `port`."""
    with socket.socket() as attempt:
        attempt.settimeout(ANSWER_S)
        return attempt.connect_ex((HOST, port)) == 0


def is_serving(address: str) -> bool:
    """Whether the gRPC server at `address` is SERVING as a whole."""
    # A new channel, because one that has failed waits before it tries again.
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            response = check(health_pb2.HealthCheckRequest(service=""), timeout=ANSWER_S)
        except grpc.RpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def is_answering(port: int) -> bool:
    """Whether `registry_service.access` on `port` says that it is ready."""
    access = HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        access.request("GET", "/readyz")
        return access.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        access.close()


def is_ready(port: int) -> bool:
    """Whether the gateway on `port` says that it and all its dependencies are ready.

    Degraded is not enough: its channel to a service that has just started may not be connected yet.
    """
    gateway = HTTPConnection(HOST, port, timeout=ANSWER_S)
    try:
        gateway.request("GET", "/readyz")
        readiness = json.loads(gateway.getresponse().read())
        return bool(readiness["status"] == "ready")
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return False
    finally:
        gateway.close()
