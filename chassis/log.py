"""Writes logs as JSON lines to standard output. Messages are constant; all else is in fields."""

import logging
import re
import sys
from contextvars import ContextVar

import structlog

# Values of the current request, which are in all its log lines. They are separate context variables
# because they are used for every request, and structlog's variables cost several times as much.
request_id: ContextVar[str] = ContextVar("request_id", default="")
method: ContextVar[str] = ContextVar("method", default="")
actor: ContextVar[str] = ContextVar("actor", default="")
actor_id: ContextVar[str] = ContextVar("actor_id", default="")

# Errors of PostgreSQL quote the whole refused row, including hashes of secrets.
DETAIL = re.compile(r"^(DETAIL|CONTEXT):.*$", re.MULTILINE)


def _without_values(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if "exception" in event:
        event["exception"] = DETAIL.sub(r"\1: …", event["exception"])
    return event


def _with_request(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for variable in (request_id, method, actor, actor_id):
        if found := variable.get():
            event[variable.name] = found
    return event


def configure(service: str, level: str) -> None:
    """Sends the log lines of Mooring and of libraries to the same output. Each line about a
    request has its id, the method and the actor.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_request,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_values,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
