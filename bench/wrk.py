"""Makes HTTP load with wrk and scripts in Lua."""

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import msgspec

from bench.errors import CannotMeasure
from bench.programs import HERE, Run
from bench.stage import Services

# Later answers count as errors.
TIMEOUT_S = 15


class WrkReport(msgspec.Struct, frozen=True):
    """The last line of a script's output; see lua/report.lua."""

    answers: int
    seconds: float
    refused: int
    socket_errors: int
    p50_s: float
    p99_s: float
    max_s: float

    @property
    def good(self) -> int:
        """The number of answers without errors."""
        return self.answers - self.refused

    @property
    def good_per_s(self) -> float:
        """The rate over the whole run, which includes connecting all connections."""
        return self.good / self.seconds

    @property
    def errors(self) -> int:
        """Answers of 400 and above, failed connections, and late answers."""
        return self.refused + self.socket_errors


Report = TypeVar("Report", bound=WrkReport)


def report_in(output: str, kind: type[Report]) -> Report:
    """The report of type `kind` that ends `output`. Raises `CannotMeasure`."""
    lines = output.strip().splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=kind)
    except (IndexError, msgspec.DecodeError):
        raise CannotMeasure(f"wrk reports nothing: {lines[-1:]}") from None


def run(
    script: str, url: str, *arguments: str, connections: int, seconds: float, threads: int = 1
) -> Run:
    """Runs lua/`script`, whose output ends with a report."""
    return Run(
        "wrk",
        *(f"--threads={threads}", f"--connections={connections}", f"--duration={seconds:.0f}s"),
        *(f"--timeout={TIMEOUT_S}s", f"--script=bench/lua/{script}", url, "--", *arguments),
        LUA_PATH=f"{HERE}/lua/?.lua;;",
    )


def registrations(services: Services, connections: int, seconds: float) -> WrkReport:
    """Registers new devices on `connections` at once, for `seconds`.

    Checks that the table has a device for each answer that counts as a success.
    """
    database = services.database
    before = database.devices()
    seed = str(secrets.randbelow(2**31 - 64))
    with run(
        *("register.lua", services.gateway_url, services.provisioning_key, seed),
        connections=connections,
        seconds=seconds,
    ) as load:
        report = report_in(load.output(seconds), WrkReport)
    _demand_made(database.devices() - before, report.good)
    return report


def rate_of(services: Services, connections: int, *, programs: int = 1) -> Callable[[float], float]:
    """Registers new devices for so many seconds; returns registrations per second.

    It begins after a checkpoint, so whole pages are logged at first. The connections are spread
    over several runs of wrk, and these over the gateways.
    """

    def rate(seconds: float) -> float:
        database = services.database
        database.checkpoint()
        before = database.devices()
        with ExitStack() as ends:
            loads = [
                ends.enter_context(
                    run(
                        *(
                            "register.lua",
                            services.gateway_urls[number % len(services.gateway_urls)],
                        ),
                        *(services.provisioning_key, str(secrets.randbelow(2**31 - 64))),
                        connections=connections // programs,
                        seconds=seconds,
                    )
                )
                for number in range(programs)
            ]
            reports = [report_in(load.output(seconds), WrkReport) for load in loads]
        _demand_made(database.devices() - before, sum(report.good for report in reports))
        if any(report.errors for report in reports):
            raise CannotMeasure("some registrations failed")
        return sum(report.good_per_s for report in reports)

    return rate


def _demand_made(made: int, answered: int) -> None:
    if made < answered:
        raise CannotMeasure(f"{answered} devices were answered as new, {made} exist")
