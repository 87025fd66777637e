"""Conditions on devices in addresses: links add and remove them, and a job gets the same."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidInput
from gateway.administration import jobs
from gateway.console.broker_names import BrokerNames
from gateway.console.device_conditions import NAMES, NOT, NUMBERS, TRUTHS, Conditions, plain
from gateway.console.forms import body_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
NO_BROKERS = BrokerNames({}, {}, is_complete=True)


def values_of(name: str) -> st.SearchStrategy[str]:
    if plain(name) in TRUTHS:
        return st.sampled_from(["true", "false"])
    if plain(name) in NUMBERS:
        return st.integers(0, 2**31 - 1).map(str)
    return TEXTS


PAIRS = st.sampled_from([name for name in NAMES if "registered" not in name]).flatmap(
    lambda name: st.tuples(st.just(name), values_of(name))
)


@given(st.lists(PAIRS, max_size=10), PAIRS)
def test_a_link_adds_a_condition_and_another_removes_it(
    pairs: list[tuple[str, str]], added: tuple[str, str]
) -> None:
    before = Conditions.of(pairs)
    after = Conditions.of_query(before.plus(*added))
    assert after.has(*added)
    name, _ = added
    if not name.startswith(NOT):
        assert [pair for pair in after.pairs if pair[0] == name] == [added]
    removed = Conditions.of_query(after.minus(*added))
    assert not removed.has(*added)
    others = [pair for pair in before.pairs if pair[0] != name]
    assert [pair for pair in removed.pairs if pair[0] != name] == others
    chips = after.chips(NO_BROKERS)
    assert len(chips) == sum(name != "search" for name, _ in after.pairs)


@given(
    st.lists(PAIRS, max_size=10, unique_by=lambda pair: pair[0]).flatmap(
        lambda pairs: st.tuples(st.just(pairs), st.permutations(pairs))
    )
)
def test_the_order_of_names_does_not_matter(
    orders: tuple[list[tuple[str, str]], list[tuple[str, str]]],
) -> None:
    # Two gateways may read one address in different orders.
    one, other = map(Conditions.of, orders)
    assert one.query == other.query


@given(st.lists(PAIRS, max_size=10, unique_by=lambda pair: pair[0]))
def test_a_job_gets_the_conditions_of_the_list(pairs: list[tuple[str, str]]) -> None:
    found = Conditions.of_query(Conditions.of(pairs).query)
    body = {"kind": "assign", "mqtt_broker_id": None, "filter": found.as_filter()}
    made = body_of(jobs.create_job, body)
    for name, value in pairs:
        given_value = getattr(made.filter, name)
        one = given_value[0] if name.startswith(NOT) else given_value
        texts = {True: "true", False: "false"} if plain(name) in TRUTHS else {None: "0"}
        assert texts.get(one, str(one)) == value


@given(st.text(), st.sampled_from(NAMES), st.text())
def test_no_conditions_are_a_fault(query: str, name: str, value: str) -> None:
    conditions = Conditions.of([(name, value)])
    conditions.chips(NO_BROKERS)
    conditions.as_filter()
    with contextlib.suppress(InvalidInput):
        Conditions.of_query(query).chips(NO_BROKERS)
