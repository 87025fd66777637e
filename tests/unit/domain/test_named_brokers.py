"""A broker that is named outright: it serves, or its backup does, and no other."""

from collections.abc import Mapping

import pytest

from domain.pools import HEALTHY, Health, Situation, State, Subject, decide_named
from tests.unit.domain.test_pools import DEGRADED, DOWN, FULL

NAMED: Mapping[tuple[Health, Health | None], tuple[tuple[int, ...], Situation]] = {
    (HEALTHY, None): ((1,), Situation.USUAL),
    (DEGRADED, HEALTHY): ((1, 2), Situation.USUAL),
    (FULL, HEALTHY): ((1, 2), Situation.USUAL),
    (DOWN, None): ((1,), Situation.DOWN),
    (DOWN, HEALTHY): ((2, 1), Situation.FAILOVER),
    (DOWN, DEGRADED): ((2, 1), Situation.FAILOVER),
    (DOWN, FULL): ((2, 1), Situation.FAILOVER),
    (DOWN, DOWN): ((1, 2), Situation.DOWN),
    (Health(State.UP, returning_percent=0), HEALTHY): ((2, 1), Situation.FAILOVER),
    (Health(State.UP, returning_percent=0), DOWN): ((1, 2), Situation.USUAL),
    (Health(State.UP, returning_percent=0), None): ((1,), Situation.USUAL),
}


@pytest.mark.parametrize(("found", "expected"), NAMED.items())
def test_a_named_broker_goes_to_its_backup_or_stays(
    found: tuple[Health, Health | None], expected: tuple[tuple[int, ...], Situation]
) -> None:
    health, backup = found
    healths = {1: health} if backup is None else {1: health, 2: backup}
    decision = decide_named(1, None if backup is None else 2, healths, Subject("abc123", 7))
    assert (decision.broker_ids, decision.situation) == expected
    assert decision.told_ids == ((1,) if backup is None else (1, 2))
    assert decision.home_id is None
