"""Undocumented names of uvicorn that the HTTP server uses; for them uvicorn is pinned.

A new minor version may rename any of them. Then one of these tests fails with the name.
"""

import ast
import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

import chassis
from chassis.http_asgi import AsgiCycle
from chassis.http_server import _Server

IMPORTED = {
    "uvicorn",
    "uvicorn.config.Config",
    "uvicorn.protocols.http.flow_control.FlowControl",
    "uvicorn.protocols.http.flow_control.HIGH_WATER_LIMIT",
    "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
    "uvicorn.protocols.utils.get_local_addr",
    "uvicorn.protocols.utils.get_remote_addr",
    "uvicorn.protocols.utils.is_ssl",
    "uvicorn.server.ServerState",
}
# Names by the class that has them; an exchange also offers those of a cycle.
NAMES = {
    "Config": ["asgi_version", "loaded_app", "timeout_graceful_shutdown", "load"],
    "Server": [
        *("main_loop", "on_tick", "startup", "shutdown", "serve", "capture_signals"),
        *("servers", "server_state", "should_exit", "config"),
    ],
    "ServerState": ["connections", "tasks", "total_requests", "default_headers"],
    "FlowControl": [
        *("read_paused", "write_paused", "pause_reading", "resume_reading"),
        *("pause_writing", "resume_writing"),
    ],
    "RequestResponseCycle": [
        *("body", "more_body", "disconnected", "response_started", "response_complete"),
        *("keep_alive", "message_event", "waiting_for_100_continue", "run_asgi", "send"),
    ],
}
# The arguments of a cycle, and the methods of its transport that it calls.
CYCLE_PARAMETERS = {
    *("scope", "transport", "flow", "logger", "access_logger", "access_log", "default_headers"),
    *("message_event", "expect_100_continue", "keep_alive", "on_response"),
}


class Transport(asyncio.Transport):
    """A transport without a connection."""


def cycle() -> RequestResponseCycle:
    nothing: Any = None
    values: dict[str, Any] = dict.fromkeys(CYCLE_PARAMETERS, nothing)
    return RequestResponseCycle(**values)


MADE = {
    "Config": lambda: _loaded(),
    "Server": lambda: uvicorn.Server(_loaded()),
    "ServerState": ServerState,
    "FlowControl": lambda: FlowControl(Transport()),
    "RequestResponseCycle": cycle,
}


def _loaded() -> uvicorn.Config:
    config = uvicorn.Config(_app, log_config=None, lifespan="off")
    config.load()
    return config


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Serves nothing."""


async def _names(kind: str) -> set[str]:
    """The names of an object of this kind. Call it in an event loop, which some
    constructors need.
    """
    return set(dir(MADE[kind]()))


@pytest.mark.parametrize(("kind", "name"), [(kind, n) for kind, ns in NAMES.items() for n in ns])
def test_a_name_that_the_http_server_uses_exists(kind: str, name: str) -> None:
    has = asyncio.run(_names(kind)) | (
        {"servers"} if kind == "Server" and _sets("servers") else set()
    )
    assert name in has, f"uvicorn {uvicorn.__version__} has no {kind}.{name} any more"


def _sets(name: str) -> bool:
    """Whether uvicorn's server sets the attribute when it starts."""
    return f"self.{name}" in inspect.getsource(uvicorn.Server.startup)


def test_a_cycle_accepts_its_arguments() -> None:
    parameters = set(inspect.signature(RequestResponseCycle.__init__).parameters) - {"self"}
    assert parameters == CYCLE_PARAMETERS


@pytest.mark.parametrize(
    ("ours", "theirs"), [(_Server, uvicorn.Server), (AsgiCycle, RequestResponseCycle)]
)
def test_each_overriding_method_overrides_one(ours: type, theirs: type) -> None:
    replaced = {
        name
        for name, value in vars(ours).items()
        if inspect.isfunction(value) and not name.startswith("__")
    }
    known = {"leave", "begin"}
    assert not {name for name in replaced - known if not hasattr(theirs, name)}


def test_every_import_of_uvicorn_is_listed_here() -> None:
    found = set()
    for file in Path(chassis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {one.name for one in node.names if one.name.startswith("uvicorn")}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uvicorn"):
                found |= {f"{node.module}.{one.name}" for one in node.names}
    assert found == IMPORTED
