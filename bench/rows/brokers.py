"""Whether a thousand brokers and ten thousand fleets slow down registrations."""

from bench import growth, wrk
from bench.measures import Findings
from bench.programs import HERE
from bench.stage import Database, Stage

BROKERS = 1_000
FLEETS = 10_000


def fill(database: Database) -> None:
    """Makes the brokers and fleets."""
    database.execute((HERE / "sql" / "brokers.sql").read_text(), BROKERS)
    database.execute((HERE / "sql" / "fleets.sql").read_text(), FLEETS)
    database.execute("VACUUM (ANALYZE) mqtt_broker_config, fleets")


def measure(stage: Stage) -> Findings:
    """Measures the row."""
    with stage.database("one") as one, stage.database("brokers") as many:
        fill(many)
        with stage.services(one) as with_one, stage.services(many) as with_many:
            turns = growth.compared(
                wrk.rate_of(with_many, growth.CONNECTIONS),
                wrk.rate_of(with_one, growth.CONNECTIONS),
            )
    what = f"with {BROKERS:,} brokers and {FLEETS:,} fleets"
    return Findings((growth.figure(what, "with 1 broker", turns),))
