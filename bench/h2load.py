"""h2load: gRPC load. To it a call is a POST of the same bytes over and over."""

import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.errors import CannotMeasure
from bench.programs import Run

FINISHED = re.compile(r"^finished in [^,]+, ([0-9.]+) req/s", re.MULTILINE)
REQUESTS = re.compile(r"^requests: .* (\d+) done, (\d+) succeeded", re.MULTILINE)
DATA = re.compile(r"\((\d+)\) data$", re.MULTILINE)


@dataclass(frozen=True)
class Call:
    """A unary method of a server on loopback, and what goes with each call."""

    address: str
    method: str
    """The full name, with slashes."""
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class H2loadReport:
    """One run of it."""

    per_s: float
    done: int
    succeeded: int
    data_bytes: int


def framed(message: bytes) -> bytes:
    """As gRPC sends it: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def rate(
    call: Call, messages: Sequence[bytes], answer_bytes: int, *, in_flight: int, seconds: float
) -> float:
    """Calls per second, with `in_flight` under way for each of `messages`.

    For each there is a process with one connection, since h2load knows one body only. HTTP status
    200 is all that it checks, and an error of gRPC has that too, but no body: so all answers
    together must be as long as that many answers of `answer_bytes` are. Raises `CannotMeasure`.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        runs = []
        for number, message in enumerate(messages):
            body = Path(folder, str(number))
            body.write_bytes(framed(message))
            runs.append(ends.enter_context(_run(call, body, in_flight, seconds)))
        reports = [report_in(run.output(seconds)) for run in runs]
    demand_answers(reports, len(framed(bytes(answer_bytes))))
    return sum(report.per_s for report in reports)


def report_in(output: str) -> H2loadReport:
    """The figures in what h2load said. Raises `CannotMeasure`."""
    finished, requests, data = (find.search(output) for find in (FINISHED, REQUESTS, DATA))
    if not (finished and requests and data):
        raise CannotMeasure(f"h2load reports nothing: {output.strip().splitlines()[-1:]}")
    return H2loadReport(
        float(finished.group(1)), int(requests.group(1)), int(requests.group(2)), int(data.group(1))
    )


def demand_answers(reports: Sequence[H2loadReport], framed_bytes: int) -> None:
    """Raises `CannotMeasure` unless every call was answered with `framed_bytes`.

    Answers that the end cut off may have been counted as bytes and not as calls, so as many errors
    as calls were in flight could stay unseen.
    """
    for report in reports:
        if report.succeeded < report.done or report.data_bytes < report.done * framed_bytes:
            raise CannotMeasure(
                f"{report.done} calls of {framed_bytes} bytes each were answered with "
                f"{report.data_bytes} bytes in {report.succeeded} answers: some were errors"
            )
        if report.done == 0:
            raise CannotMeasure("no call was answered")


def _run(call: Call, body: Path, in_flight: int, seconds: float) -> Run:
    headers = (
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *call.metadata,
    )
    return Run(
        "h2load",
        *("--clients=1", f"--max-concurrent-streams={in_flight}", f"--duration={seconds:.0f}"),
        f"--data={body}",
        *(f"--header={name}: {value}" for name, value in headers),
        f"http://{call.address}{call.method}",
    )
