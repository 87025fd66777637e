"""The cost of a second replica of each service.

On a machine where one of each uses all cores already, a second one gains nothing. The ratio shows
what smaller batches and waiting for the other's commits cost.
"""

import os

from bench import growth, wrk
from bench.measures import Findings
from bench.stage import Stage

REPLICAS = 2


def measure(stage: Stage) -> Findings:
    """Measures the row. Devices are spread over the gateways, as by a load balancer."""
    with (
        stage.database("replicas") as many,
        stage.database("one") as one,
        stage.services(many, replicas=REPLICAS) as with_many,
        stage.services(one) as with_one,
    ):
        # As many programs make the load in both cases.
        turns = growth.compared(
            wrk.rate_of(with_many, growth.CONNECTIONS, programs=REPLICAS),
            wrk.rate_of(with_one, growth.CONNECTIONS, programs=REPLICAS),
        )
    what = f"with {REPLICAS} of each service on the same {os.cpu_count()} cores"
    return Findings((growth.figure(what, "with 1 of each", turns),))
