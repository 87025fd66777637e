"""Pins a million devices to another broker while others register."""

import secrets
import time
from functools import partial

from bench import crowd, wrk
from bench.errors import CannotMeasure
from bench.http import ask
from bench.measures import Figure, Findings, Goal, ms, per_s, zero
from bench.programs import HERE
from bench.rows import brokers
from bench.stage import Database, Stage

TARGET = 2
# Each connection registers a device every 20 to 50 ms.
CONNECTIONS = 8
# Longer than the job takes, so that devices register all the time.
LONGEST_S = 90.0
# Some devices register before the job begins.
BEFORE_S = 1.0
POLL_S = 0.2
# The job includes devices that register between the check and the start.
NEWCOMERS = "SELECT count(*) FROM devices WHERE id > %s AND mqtt_broker_id = %s"
OTHERS = "SELECT count(*) FROM devices WHERE id <= %s AND mqtt_broker_id IS DISTINCT FROM %s"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with (
        # As for registrations, this size is recommended: each update changes all indexes.
        stage.configured("max_wal_size", "8GB"),
        stage.database("bulk", like=crowd.database(stage)) as database,
    ):
        fill(database)
        last = database.number("SELECT max(id) FROM devices")
        with stage.services(database) as services:
            asked = partial(ask, services.gateway_port, token=services.admin_token)
            wanted = {"kind": "assign", "mqtt_broker_id": TARGET, "filter": {}}
            job = asked("POST", "/api/v1/jobs", body=wanted)
            path = f"/api/v1/jobs/{job['id']}"
            begun = time.monotonic()
            check = asked("POST", f"{path}/check")
            checked_s = time.monotonic() - begun
            seed = str(secrets.randbelow(2**31 - 64))
            with wrk.run(
                *("steady.lua", services.gateway_url, services.provisioning_key, seed),
                connections=CONNECTIONS,
                seconds=LONGEST_S,
            ) as load:
                load.demand_running_for(BEFORE_S)
                begun = time.monotonic()
                asked("POST", f"{path}/start")
                while (job := asked("GET", path))["state"] == "running":
                    load.demand_running_for(POLL_S)
                took_s = time.monotonic() - begun
                report = wrk.report_in(load.output(LONGEST_S), wrk.WrkReport)
        left = database.number(OTHERS, last, TARGET)
        newcomers = database.number(NEWCOMERS, last, TARGET)
    if check["outcomes"]["moved"] + newcomers != job["outcomes"]["moved"]:
        raise CannotMeasure(f"{check['outcomes']} were announced, and {job['outcomes']} became")
    return Findings(
        (
            Figure(
                f"dry run of assigning {crowd.DEVICES:,} devices",
                f"{checked_s:.1f} s",
                value=checked_s,
                unit="s",
                goal=Goal(10, 5, at_most=True),
            ),
            Figure(
                f"assigning them, while {per_s(report.good_per_s)} register",
                f"{took_s:.1f} s",
                value=took_s,
                unit="s",
                goal=Goal(60, 45, at_most=True),
            ),
            zero("of these, devices that were not assigned", left),
            Figure(
                "p99 of registrations meanwhile",
                f"{ms(report.p99_s)} of {report.answers} registrations",
                value=report.p99_s * 1e3,
                unit="ms",
                goal=Goal(1_000, 250, at_most=True),
            ),
            zero("errors among them", report.errors),
        )
    )


def fill(database: Database) -> None:
    """Adds brokers and fleets to the million devices, and assigns some devices to each."""
    brokers.fill(database)
    spread = (HERE / "sql" / "spread.sql").read_text()
    database.execute(spread, brokers.FLEETS, brokers.BROKERS)
    database.execute("VACUUM (ANALYZE) devices")
    database.checkpoint()
