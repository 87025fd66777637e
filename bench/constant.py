"""`python -m bench.constant PORT METHOD FILE MARK`: a gRPC server that always answers FILE's bytes.

It is the least that a service like ours must do: the same server and the same loop without any
work. It makes the file MARK when it listens.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop

from bench.programs import Run
from chassis.server import MAX_MESSAGE_BYTES
from local.postgres import free_port


class Constant(grpc.GenericRpcHandler):
    """Answers `method` with `answer`; neither request nor answer is decoded."""

    def __init__(self, method: str, answer: bytes) -> None:
        """`method` is the full name, with slashes."""

        async def same(_request: bytes, _context: Any) -> bytes:
            return answer

        self._method = method
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            same
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """The handler if the call is of its method, else None."""
        return self._handler if handler_call_details.method == self._method else None


async def serve(port: int, method: str, answer: bytes, mark: Path) -> None:
    """Serves until it is killed."""
    server = grpc.aio.server(
        options=[
            # The same options as Mooring's servers.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
        ]
    )
    server.add_generic_rpc_handlers((Constant(method, answer),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    mark.touch()  # noqa: ASYNC240 - once, before the first call
    await asyncio.Event().wait()


@contextmanager
def serving(method: str, answer: bytes) -> Iterator[str]:
    """Runs such a server in its own process; yields its address."""
    with tempfile.TemporaryDirectory() as name:
        given, mark = Path(name, "answer"), Path(name, "listens")
        given.write_bytes(answer)
        port = free_port()
        with Run("python", "-m", "bench.constant", str(port), method, str(given), str(mark)) as run:
            run.wait_for(mark)
            yield f"127.0.0.1:{port}"


if __name__ == "__main__":
    _, at, full_name, file, when_listening = sys.argv
    uvloop.run(serve(int(at), full_name, Path(file).read_bytes(), Path(when_listening)))
