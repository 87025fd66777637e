"""What a replica of each service costs.

On a machine where one of each fills the cores already, a second one of each gains nothing: the
ratio says what is lost, to smaller batches and to waiting for one another's commits.
"""

import os

from bench import growth, wrk
from bench.measures import Findings
from bench.stage import Stage

REPLICAS = 2


def measure(stage: Stage) -> Findings:
    """The row. Devices are spread over the gateways, as a load balancer would."""
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
