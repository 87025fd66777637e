"""A fleet that powers up at once: 50,000 devices over 2,000 connections."""

import secrets

from bench import memory, wrk
from bench.errors import CannotMeasure
from bench.measures import Figure, Findings, Goal, ms, zero
from bench.stage import Database, Stage

DEVICES = 50_000
CONNECTIONS = 2_000
LONGEST_S = 120.0


class StormReport(wrk.WrkReport, frozen=True):
    """The report of lua/storm.lua."""

    wanted: float
    registered: float
    retries: float
    resent: float
    unhealed: float
    storm_s: float
    """Until the last device was registered; 0 if it never was."""


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with stage.database("storm") as database, stage.services(database) as services:
        for pid in services.pids.values():
            memory.forget_peak(pid)
        seed = str(secrets.randbelow(2**31))
        with wrk.run(
            *("storm.lua", services.gateway_url, services.provisioning_key, seed, str(DEVICES)),
            connections=CONNECTIONS,
            seconds=LONGEST_S,
        ) as load:
            report = wrk.report_in(load.output(LONGEST_S), StormReport)
        peaks = {module: memory.peak_mb(pid) for module, pid in services.pids.items()}
        lost = report.wanted - report.registered
        if not lost:
            demand_exact(database)
    seconds = report.storm_s or LONGEST_S
    return Findings(
        (
            Figure(
                f"{DEVICES:,} devices at once, {CONNECTIONS:,} connections",
                f"{seconds:.1f} s, {report.retries + report.resent:,.0f} tries again, "
                f"p99 {ms(report.p99_s)}",
                value=seconds,
                unit="s",
                goal=Goal(25, 10, at_most=True),
            ),
            zero("devices that stayed out, or were refused for good", lost),
            # The retry corrects them, or the line above shows that it did not.
            Figure("connections that failed in it", f"{report.socket_errors:,}"),
            *(
                Figure(
                    f"peak memory of {module} in it",
                    f"{peak:.0f} MB",
                    value=peak,
                    unit="MB",
                    goal=Goal(200, 120, at_most=True),
                )
                for module, peak in peaks.items()
            ),
        )
    )


def demand_exact(database: Database) -> None:
    """Raises `CannotMeasure` unless each device exists once and was counted once."""
    distinct = database.number("SELECT count(DISTINCT uuid) FROM devices")
    counted = database.number("SELECT sum(devices_provisioned) FROM provisioning_keys")
    if (distinct, counted) != (DEVICES, DEVICES):
        raise CannotMeasure(
            f"of {DEVICES:,} devices {distinct:,} are in the table and {counted:,} were counted"
        )
