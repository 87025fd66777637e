"""Forms: what a person filled in, and that no body of a form is a fault."""

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.exceptions import ClientException, HTTPException

from chassis.errors import InvalidInput
from gateway.console.forms import MAX_FIELDS, MEDIA_TYPE, parsed

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=20))
def test_a_form_is_read_as_it_was_filled_in(pairs: list[tuple[str, str]]) -> None:
    form = parsed(MEDIA_TYPE, urlencode(pairs).encode())
    last = dict(pairs)
    for name, value in last.items():
        assert form.verbatim(name) == value
        assert form.text(name) == value.strip()
        assert name in form
        assert form.texts(name) == [
            text.strip() for found, text in pairs if found == name and text.strip()
        ]


@given(st.binary(max_size=200))
def test_no_body_is_a_fault(body: bytes) -> None:
    with contextlib.suppress(InvalidInput, ClientException):
        parsed(MEDIA_TYPE, body)


def test_too_many_fields_and_other_types_are_refused() -> None:
    with pytest.raises(InvalidInput):
        parsed(MEDIA_TYPE, b"&".join([b"a=b"] * (MAX_FIELDS + 1)))
    for other in ("application/json", "text/plain", "multipart/form-data", ""):
        with pytest.raises(HTTPException) as refused:
            parsed(other, b"a=b")
        assert refused.value.status_code == 415


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("60", 60),
        (" 60 ", 60),
        ("-1", -1),
        ("", None),
        ("six", "six"),
        ("6.0", "6.0"),
        ("٣", "٣"),
        ("9" * 18, 10**18 - 1),
        ("9" * 5_000, "9" * 5_000),
    ],
)
def test_numbers(text: str, number: int | str | None) -> None:
    assert parsed(MEDIA_TYPE, urlencode({"a": text}).encode()).number("a") == number
