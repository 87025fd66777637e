"""The slots of a pool, which the database keeps, are those of domain/slots.py."""

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from domain.slots import SLOTS, moved, settled
from tests.integration.migrations.pool_rows import (
    ADD,
    OPERATOR,
    made_brokers,
    made_pool,
    slots_of,
)
from tests.stack import Database

WEIGHTS = st.dictionaries(st.integers(1, 9) | st.integers(1, 2**31 - 1), st.integers(0, 10_000))
# Slots of members that have left, too few, and too many.
STORED = st.tuples(
    st.lists(st.integers(1, 9), max_size=8), st.sampled_from([0, 1, 3, SLOTS - 5, SLOTS, SLOTS + 5])
).map(lambda given: (given[0] * SLOTS)[: given[1]])
EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # making one smaller takes minutes
    suppress_health_check=list(HealthCheck),
)
# As integers: psycopg sends small numbers as smallint.
CALL = b"SELECT pool_slots(%s::integer[], %s::integer[], %s::integer[])"


def test_sql_and_python_settle_the_same_slots(database: Database) -> None:
    with psycopg.connect(database.url("mooring_broker")) as connection:

        @EXAMPLES
        @given(STORED, WEIGHTS)
        def agree(slots: list[int], weights: dict[int, int]) -> None:
            given = [slots, list(weights), list(weights.values())]
            assert connection.execute(CALL, given).fetchone() == (settled(slots, weights),)

        agree()


def test_any_number_of_members_with_the_largest_weights_fits(database: Database) -> None:
    weights = {broker_id: 10_000 - broker_id for broker_id in range(1, 1_001)}
    with psycopg.connect(database.url("mooring_broker")) as connection:
        row = connection.execute(CALL, [[], list(weights), list(weights.values())]).fetchone()
    assert row == (settled([], weights),)


def test_each_change_by_sql_moves_the_fewest_slots(database: Database) -> None:
    one, two, three, four = made_brokers(database, 4)
    weights = {one: 100, two: 100}
    pool_id = made_pool(database, weights)
    slots = settled([], weights)
    assert slots_of(database, pool_id) == slots
    changes: list[tuple[str, list[int], dict[int, int]]] = [
        (ADD, [pool_id, three, 100], {one: 100, two: 100, three: 100}),
        (
            "UPDATE pool_members SET weight = 50 WHERE broker_id = %s",
            [one],
            {one: 50, two: 100, three: 100},
        ),
        (ADD, [pool_id, four, 0], {one: 50, two: 100, three: 100}),
        ("DELETE FROM pool_members WHERE broker_id = %s", [two], {one: 50, three: 100}),
        ("UPDATE pool_members SET weight = 0 WHERE broker_id <> %s", [four], {}),
        ("UPDATE pool_members SET weight = 7 WHERE broker_id = %s", [four], {four: 7}),
    ]
    for statement, values, weights in changes:
        database.execute(statement, *values, role=OPERATOR)
        slots = settled(slots, weights)
        assert slots_of(database, pool_id) == slots


def test_several_statements_of_a_transaction_move_slots_once(database: Database) -> None:
    one, two, three = made_brokers(database, 3)
    pool_id = made_pool(database, {one: 100, two: 100})
    before = slots_of(database, pool_id)
    with psycopg.connect(database.url(OPERATOR)) as connection:
        # Each statement by itself would move all slots of the first member.
        connection.execute("DELETE FROM pool_members WHERE broker_id = %s", [one])
        connection.execute(ADD, [pool_id, three, 100])
        connection.execute(ADD, [pool_id, one, 100])
    after = slots_of(database, pool_id)
    assert after == settled(before, {one: 100, two: 100, three: 100})
    assert {new for _, new in moved(before, after)} == {three}
    # A change that is taken back in the same transaction moves none.
    with psycopg.connect(database.url(OPERATOR)) as connection:
        connection.execute("UPDATE pool_members SET weight = 1 WHERE broker_id = %s", [one])
        connection.execute("UPDATE pool_members SET weight = 100 WHERE broker_id = %s", [one])
    assert slots_of(database, pool_id) == after


def test_a_change_of_the_pool_itself_moves_no_slot(database: Database) -> None:
    one, two = made_brokers(database, 2)
    pool_id = made_pool(database, {one: 100, two: 200})
    slots = slots_of(database, pool_id)
    database.execute("UPDATE pools SET policy = 'priority', name = 'other'", role=OPERATOR)
    database.execute("UPDATE pool_members SET priority = 2", role=OPERATOR)
    assert slots_of(database, pool_id) == slots
