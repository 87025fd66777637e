"""Makes gRPC load with h2load, for which a call is a POST with constant bytes."""

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
    """A unary method of a server on loopback, with the metadata of each call."""

    address: str
    method: str
    """The full name, with slashes."""
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class H2loadReport:
    """The figures of one run."""

    per_s: float
    done: int
    succeeded: int
    data_bytes: int


def framed(message: bytes) -> bytes:
    """The message as gRPC frames it: an uncompressed flag, its length, its bytes."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def rate(
    call: Call, messages: Sequence[bytes], answer_bytes: int, *, in_flight: int, seconds: float
) -> float:
    """Calls per second, with `in_flight` calls at a time for each of `messages`.

    Each message has its own process with one connection, because h2load sends only one body. h2load
    checks only the HTTP status 200, which errors of gRPC have too; but these have no body. So this
    checks that all answers together are as long as that many answers of `answer_bytes`. Raises
    `CannotMeasure`.
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
    """Reads the figures from h2load's output. Raises `CannotMeasure`."""
    finished, requests, data = (find.search(output) for find in (FINISHED, REQUESTS, DATA))
    if not (finished and requests and data):
        raise CannotMeasure(f"h2load reports nothing: {output.strip().splitlines()[-1:]}")
    return H2loadReport(
        float(finished.group(1)), int(requests.group(1)), int(requests.group(2)), int(data.group(1))
    )


def demand_answers(reports: Sequence[H2loadReport], framed_bytes: int) -> None:
    """Raises `CannotMeasure` unless every call was answered with `framed_bytes`.

    h2load may count the bytes but not the calls of answers that the end of the run cut off, so as
    many errors as calls were in flight could go unnoticed.
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
