"""Cursors of changes."""

from hypothesis import given
from hypothesis import strategies as st

from registry_service.system.cursor import Cursor

XIDS = st.integers(0, 10**17)


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    between = sorted(draw(st.sets(XIDS, max_size=20)))
    first = between[0] if between else draw(XIDS)
    following = draw(st.integers(max([first, *between]), 10**18 - 1))
    epoch = f"{draw(st.integers(0, 2**64))}-{draw(st.integers(0, 2**32))}-0000000A"
    return Cursor(epoch, first, following, tuple(between))


@given(cursors())
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@given(cursors())
def test_the_text_of_a_snapshot_is_read(cursor: Cursor) -> None:
    text = f"{cursor.first}:{cursor.next}:{','.join(map(str, cursor.open))}"
    assert Cursor.of(cursor.epoch, text) == cursor


@given(st.text() | st.text("0123456789:.,-af"))
def test_any_other_text_is_no_cursor(text: str) -> None:
    cursor = Cursor.parse(text)
    assert cursor is None or Cursor.parse(str(cursor)) == cursor


def test_texts_that_are_too_large_are_no_cursors() -> None:
    assert Cursor.parse("a.1:1:" + "1," * 64 * 1024) is None
    assert Cursor.parse(f"a.1:1:{2**63}") is None
    assert Cursor.parse(f"a.1:{10**18}:") is None


@given(cursors(), cursors(), XIDS)
def test_it_leads_on_only_in_the_same_history(old: Cursor, new: Cursor, kept_from: int) -> None:
    assert old.leads_to(old, min(kept_from, old.first))
    if old.epoch != new.epoch or new.next < old.next or old.first < kept_from:
        assert not old.leads_to(new, kept_from)
