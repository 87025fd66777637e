"""Forms that send only what a person changed."""

from datetime import UTC, datetime
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.administration.fields import Moment
from gateway.console.changes import changed_in, ids_in, in_utc, lines_of, moment_text
from gateway.console.forms import MEDIA_TYPE, Form, parsed

LINES = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1))


def form_of(*pairs: tuple[str, str]) -> Form:
    return parsed(MEDIA_TYPE, urlencode(pairs).encode())


@given(LINES, LINES)
def test_a_field_has_changed_if_its_lines_have(was: list[str], typed: list[str]) -> None:
    # Browsers send CRLF between lines, and one value for each box that is ticked.
    one = form_of(("a", "\r\n".join(typed)), ("was.a", "\n".join(was)))
    many = form_of(*(("a", line) for line in typed), ("was.a", "\n".join(was)))
    for form in (one, many):
        assert lines_of(form, "a") == typed
        assert changed_in(form, ["a", "b"]) == (["a"] if was != typed else [])


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives_its_form(at: datetime) -> None:
    read = msgspec.convert(in_utc(moment_text(at)), Moment)
    assert read == at.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("2026-11-27T10:00", "2026-11-27T10:00:00Z"),
        ("2026-11-27T10:00:30", "2026-11-27T10:00:30Z"),
        ("2026-11-27T10:00:00+01:00", "2026-11-27T10:00:00+01:00"),
        ("tomorrow", "tomorrow"),
        ("2026-11-27", "2026-11-27"),
        ("", ""),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, sent: str) -> None:
    assert in_utc(text) == sent


def test_ids_are_numbers_and_other_texts_stay() -> None:
    form = form_of(("a", "1\r\n 22 \r\nx\r\n-1\r\n٣"), ("a", "9" * 5_000))
    assert ids_in(form, "a") == [1, 22, "x", "-1", "٣", "9" * 5_000]
