"""Whether the gateway answers other requests while a thousand devices register."""

import secrets

from bench import wrk
from bench.measures import Figure, Findings, Goal, ms, per_s, zero
from bench.stage import Stage

CONNECTIONS = 1_024
STORM_S = 12.0
# The other requests begin after the storm and end before it.
BEFORE_S = 1.0
ASKING_S = 9.0
READINESS, BROKERS = "/readyz", "/api/v1/brokers"


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with stage.database("responsive") as database, stage.services(database) as services:
        seed = str(secrets.randbelow(2**31 - 64))
        url, token = services.gateway_url, services.admin_token
        with wrk.run(
            *("register.lua", url, services.provisioning_key, seed),
            connections=CONNECTIONS,
            seconds=STORM_S,
        ) as storm:
            storm.demand_running_for(BEFORE_S)
            with (
                wrk.run(
                    "gentle.lua", f"{url}{READINESS}", connections=1, seconds=ASKING_S
                ) as probe,
                wrk.run(
                    "gentle.lua", f"{url}{BROKERS}", token, connections=1, seconds=ASKING_S
                ) as admin,
            ):
                asked = {
                    READINESS: wrk.report_in(probe.output(ASKING_S), wrk.WrkReport),
                    BROKERS: wrk.report_in(admin.output(ASKING_S), wrk.WrkReport),
                }
            load = wrk.report_in(storm.output(STORM_S), wrk.WrkReport)
    return Findings(
        (
            *(
                Figure(
                    f"p99 of GET {path} while {CONNECTIONS:,} connections register",
                    f"{ms(report.p99_s)} of {report.answers} requests",
                    value=report.p99_s * 1e3,
                    unit="ms",
                    goal=Goal(250, 250, at_most=True),
                )
                for path, report in asked.items()
            ),
            zero(
                "of these, answers other than 200",
                sum(report.errors for report in asked.values()),
            ),
            zero(f"errors among the devices, {per_s(load.good_per_s)}", load.errors),
        )
    )
