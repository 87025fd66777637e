"""How much the broker service reads for the rotation of a certificate, with a thousand brokers."""

import re
import time
from functools import partial
from statistics import median
from urllib.request import urlopen

from bench.certificate import ca_certificate
from bench.errors import CannotMeasure
from bench.http import PATIENCE_S, ask
from bench.measures import Figure, Findings, Goal, ms
from bench.rows import brokers
from bench.stage import Services, Stage

# The number of brokers that use the certificate.
USING = 10
ROUNDS = 20
READ = re.compile(r'^mooring_placement_rows_read_total\{kind="\w+"\} (\S+)$', re.MULTILINE)


def measure(stage: Stage) -> Findings:
    """Measures the row. The rotation is staged and cancelled repeatedly; each changes the answers.

    All brokers are also read every ten seconds in any case; the median leaves that out.
    """
    with stage.database("rotation") as database:
        brokers.fill(database)
        with stage.services(database) as services:
            asked = partial(ask, services.gateway_port, token=services.admin_token)
            old = asked(
                "POST", "/api/v1/certificates", body={"kind": "ca", "pem": ca_certificate()}
            )
            database.execute(
                "UPDATE mqtt_broker_config SET ca_certificate_id = %s WHERE id %% (%s / %s) = 1",
                *(old["id"], brokers.BROKERS, USING),
            )
            path = f"/api/v1/certificates/{old['id']}/rotation"
            replacement = {"replacement": {"pem": ca_certificate()}}
            staged = asked("POST", path, body=replacement)
            used = len(staged["broker_ids"])
            again = {"replacement_id": staged["replacement_id"]}
            asked("DELETE", path)
            rows: list[float] = []
            taken: list[float] = []
            for _ in range(ROUNDS):
                before, begun = _read(services), time.perf_counter()
                asked("POST", path, body=again)
                taken.append(time.perf_counter() - begun)
                rows.append(_read(services) - before)
                asked("DELETE", path)
    return Findings(
        (
            Figure(
                f"brokers and fleets read when a CA of {used} of {brokers.BROKERS:,} brokers"
                " begins to be replaced",
                f"{median(rows):.0f}",
                value=median(rows),
                goal=Goal(used, used, at_most=True),
            ),
            Figure(
                "p50 of beginning it, until it is in effect",
                ms(median(taken)),
                value=median(taken) * 1e3,
                unit="ms",
                goal=Goal(50, 20, at_most=True),
            ),
        )
    )


def _read(services: Services) -> float:
    """The number of rows that the broker service has read into memory until now."""
    url = f"http://127.0.0.1:{services.broker_metrics_port}/metrics"
    with urlopen(url, timeout=PATIENCE_S) as response:
        found = READ.findall(response.read().decode())
    if not found:
        raise CannotMeasure("the broker service does not say what it has read")
    return sum(map(float, found))
