"""`python -m bench.constant PORT METHOD FILE MARK`: a gRPC server that always answers FILE's bytes.

The least that a service like ours would have to do: the same server, the same loop, and no work.
It makes the file MARK when it listens.
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
        """The handler, for its method."""
        return self._handler if handler_call_details.method == self._method else None


async def serve(port: int, method: str, answer: bytes, mark: Path) -> None:
    """Until it is killed."""
    server = grpc.aio.server(
        options=[
            # As our own servers have them.
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
    """Such a server as a process of its own; yields its address."""
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
