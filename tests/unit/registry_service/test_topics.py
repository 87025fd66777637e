"""Matching and covering of topics, against models that try everything, and with every
known trick.
"""

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry_service.topics import (
    MAX_BYTES,
    covers,
    is_filter,
    is_topic,
    matches,
    without_share,
)

OWN = "iot/device/abc123/#"

# No filter contains "z", so a "+" always matches something that no filter names.
TOPIC_LEVELS = ("", "a", "b", "$", "$SYS", "z")
FILTER_LEVELS = ("", "a", "b", "$", "$SYS", "+")


def every(levels: tuple[str, ...], depth: int) -> list[str]:
    return ["/".join(some) for n in range(1, depth + 1) for some in product(levels, repeat=n)]


def every_filter(depth: int) -> list[str]:
    plain = every(FILTER_LEVELS, depth)
    return [text for text in plain if text] + ["#"] + [f"{above}/#" for above in plain]


TOPICS = [topic for topic in every(TOPIC_LEVELS, 4) if topic]
FILTERS = every_filter(2)


def model_matches(wanted: list[str], levels: list[str]) -> bool:
    """Level by level, as in section 4.7.1."""
    if wanted == ["#"]:
        return True
    if not wanted or not levels:
        return wanted == levels
    first, *others = wanted
    return first in ("+", levels[0]) and model_matches(others, levels[1:])


def model(topic_filter: str, topic: str) -> bool:
    """With section 4.7.2."""
    is_hidden = topic.startswith("$") and topic_filter.startswith(("+", "#"))
    return not is_hidden and model_matches(topic_filter.split("/"), topic.split("/"))


def test_every_small_filter_matches_like_the_model() -> None:
    for topic_filter in FILTERS:
        for topic in TOPICS:
            assert matches(topic_filter, topic) is model(topic_filter, topic), (topic_filter, topic)


def test_a_small_filter_covers_another_exactly_if_it_matches_all_its_topics() -> None:
    matched = {one: {topic for topic in TOPICS if model(one, topic)} for one in FILTERS}
    assert all(matched.values())
    for grant in FILTERS:
        for asked in FILTERS:
            assert covers(grant, asked) is (matched[asked] <= matched[grant]), (grant, asked)


WIDE_LEVELS = st.sampled_from(["", "a", "b", "$SYS", "$share", "ü", "*", "."])
WIDE_TOPICS = st.lists(WIDE_LEVELS, min_size=1, max_size=6).map("/".join).filter(bool)
WIDE_FILTERS = (
    st.tuples(
        st.lists(WIDE_LEVELS | st.just("+"), max_size=5), st.sampled_from([[], ["#"], ["+"], ["a"]])
    )
    .map(lambda both: "/".join(both[0] + both[1]))
    .filter(bool)
)


@given(WIDE_FILTERS, WIDE_TOPICS)
def test_any_filter_matches_like_the_model(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) is model(topic_filter, topic)


@given(WIDE_FILTERS, WIDE_FILTERS, WIDE_TOPICS)
def test_a_covered_filter_matches_no_more(grant: str, asked: str, topic: str) -> None:
    if covers(grant, asked) and matches(asked, topic):
        assert matches(grant, topic)


@given(WIDE_FILTERS, WIDE_FILTERS, WIDE_FILTERS)
def test_covering_is_reflexive_and_transitive(one: str, two: str, three: str) -> None:
    assert covers(one, one)
    if covers(one, two) and covers(two, three):
        assert covers(one, three)


@given(WIDE_FILTERS, WIDE_TOPICS)
def test_a_topic_is_a_filter_that_matches_only_itself(topic_filter: str, topic: str) -> None:
    assert is_filter(topic)
    assert covers(topic_filter, topic) is matches(topic_filter, topic)


ANYTHING = st.text(st.characters(codec=None), max_size=20) | st.text("ab/+#$\0\ud800", max_size=8)


@given(ANYTHING, ANYTHING)
@example("a/#/b", "a/#/b")
@example("\ud800", "\ud800")
@example("a\0", "a\0")
@example("#/#", "#/#")
@example("", "")
def test_a_malformed_filter_neither_matches_nor_covers(one: str, other: str) -> None:
    assert is_topic(other) or not matches(one, other)
    assert is_filter(one) or not (matches(one, other) or covers(one, other) or covers(other, one))
    without_share(one)


@pytest.mark.parametrize(
    "topic",
    [
        "a",
        "/",
        "//",
        "a/",
        "/a",
        "a//b",
        " ",
        "$SYS",
        "$",
        "a b",
        "ü/\U0001f680",
        "*",
        "a" * MAX_BYTES,
    ],
)
def test_topics(topic: str) -> None:
    assert is_topic(topic)
    assert is_filter(topic)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "a\0b",
        "\ud800",
        "a/\udfff",
        "\ud83d\ude80",
        "a" * (MAX_BYTES + 1),
        "ü" * (MAX_BYTES // 2 + 1),
        "\U0001f680" * (MAX_BYTES // 4 + 1),
    ],
)
def test_texts_that_are_neither_topic_nor_filter(text: str) -> None:
    assert not is_topic(text)
    assert not is_filter(text)


def test_the_maximum_length_is_in_bytes() -> None:
    assert is_topic("ü" * (MAX_BYTES // 2))
    assert is_filter("ü" * (MAX_BYTES // 2 - 1) + "/#")


@pytest.mark.parametrize("wildcard", ["#", "+", "a/#", "+/a", "+/+/#", "/#", "/+", "+//+", "a/+/"])
def test_filters_with_wildcards_are_not_topics(wildcard: str) -> None:
    assert is_filter(wildcard)
    assert not is_topic(wildcard)
    assert not matches("#", wildcard)


@pytest.mark.parametrize(
    "malformed",
    [
        "a#",
        "#a",
        "a/#b",
        "a/b#",
        "#/",
        "#/a",
        "a/#/b",
        "##",
        "a/##",
        "#/#",
        "+a",
        "a+",
        "a/+b/c",
        "++",
        "+#",
    ],
)
def test_misplaced_wildcards(malformed: str) -> None:
    assert not is_filter(malformed)
    assert not is_topic(malformed)
    assert not covers("#", malformed)
    assert not covers(malformed, malformed)


@pytest.mark.parametrize(
    "asked",
    [
        OWN,
        "iot/device/abc123",
        "iot/device/abc123/",
        "iot/device/abc123//",
        "iot/device/abc123/+",
        "iot/device/abc123/+/#",
        "iot/device/abc123/+/+/x",
        "iot/device/abc123/$SYS/#",
        "iot/device/abc123/cmd/*",
        "iot/device/abc123/../other",  # no path
    ],
)
def test_a_device_may_subscribe_to_all_its_topics(asked: str) -> None:
    assert covers(OWN, asked)


@pytest.mark.parametrize(
    "trick",
    [
        "#",
        "+",
        "+/#",
        "/#",
        "iot/#",
        "iot/device/#",
        "iot/device/+",
        "iot/device/+/#",
        "iot/+/abc123/#",
        "+/device/abc123/#",
        "+/+/+/#",
        "iot/device/abc1234/#",
        "iot/device/abc12/#",
        "iot/device/ABC123/#",
        "iot/device/abc123#",
        "iot/device/abc123+",
        "iot/device/abc+/#",
        "/iot/device/abc123/#",
        "iot//device/abc123/#",
        "iot/device/abc123/#/x",
        "iot/device/other/../abc123/#",
        " iot/device/abc123/#",
        "iot/device/abc123/\0",
        "$SYS/#",
        "$SYS/+/clients",
        "$/#",
        "$share/group/#",
        "$share/group/iot/device/abc123/#",
        "$queue/iot/device/abc123/#",
        "$delayed/1/iot/device/abc123/x",
        "$exclusive/iot/device/abc123/x",
    ],
)
def test_every_trick_is_refused(trick: str) -> None:
    assert not covers(OWN, trick)


@pytest.mark.parametrize("grant", ["#", "+/#", "+/+", "+/+/#"])
@pytest.mark.parametrize("hidden", ["$SYS/a", "$SYS/#", "$SYS/+", "$share/a", "$/a"])
def test_a_leading_wildcard_does_not_match_a_leading_dollar(grant: str, hidden: str) -> None:
    assert not covers(grant, hidden)
    assert not matches(grant, hidden)


@pytest.mark.parametrize("filter_", ["a/#", "a/+", "+/#"])
def test_a_dollar_further_down_is_ordinary(filter_: str) -> None:
    assert matches(filter_, "a/$SYS")


@pytest.mark.parametrize(
    ("asked", "matched"),
    [
        ("$share/group/iot/device/abc123/#", OWN),
        ("$share/group/#", "#"),
        ("$share/group//", "/"),
        ("$share/a/$share/b/c", "$share/b/c"),
        ("$share/$share/a", "a"),
        ("$SHARE/group/a", "$SHARE/group/a"),
        ("$share", "$share"),
        ("$shared/group/a", "$shared/group/a"),
        ("a/$share/group/b", "a/$share/group/b"),
        (OWN, OWN),
        ("$share/", ""),
        ("$share/group", ""),
        ("$share/group/", ""),
        ("$share//a", ""),
        ("$share/+/a", ""),
        ("$share/#", ""),
        ("$share/a#/a", ""),
        ("$share/a+b/a", ""),
    ],
)
def test_the_topics_of_a_shared_subscription(asked: str, matched: str) -> None:
    assert without_share(asked) == matched


def test_the_name_of_a_share_widens_nothing() -> None:
    assert covers(OWN, without_share(f"$share/x/{OWN}"))
    for trick in ("$share/x/#", "$share/x/iot/device/+/#", "$share/x/$share/y/" + OWN):
        assert not covers(OWN, without_share(trick))
