"""How often the last use of a token is written."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Unavailable
from registry_service.administration.tokens.last_use import EVERY, LastUse, Moments, due

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKENS = [UUID(int=n) for n in range(3)]
MOMENTS = st.dictionaries(
    st.sampled_from(TOKENS), st.integers(0, 200).map(lambda s: NOW - timedelta(seconds=s))
)


@given(used=MOMENTS, written=MOMENTS)
def test_each_is_written_once_a_minute_and_none_is_lost(used: Moments, written: Moments) -> None:
    found = due(used, written, NOW)
    for token_id, at in used.items():
        was_just_written = token_id in written and NOW - written[token_id] < EVERY
        assert (token_id in found) is not was_just_written
        assert found.get(token_id, at) == at
    # A waiting use is due after a minute at the latest.
    assert due(used, written, NOW + EVERY) == used


async def test_a_use_that_could_not_be_written_is_written_later() -> None:
    written: list[Moments] = []
    is_down = True

    async def write(moments: Moments) -> None:
        if is_down:
            raise Unavailable("not now")
        written.append(moments)

    last_use = LastUse(write)
    last_use.note(TOKENS[0])
    await last_use.close()
    assert not written
    is_down = False
    await last_use.close()
    await last_use.close()
    assert [list(moments) for moments in written] == [[TOKENS[0]]]


async def test_a_use_during_a_write_is_not_lost() -> None:
    written: list[Moments] = []

    async def write(moments: Moments) -> None:
        written.append(moments)
        if len(written) == 1:
            last_use.note(TOKENS[0])

    last_use = LastUse(write)
    last_use.note(TOKENS[0])
    await last_use.close()
    await last_use.close()
    assert len(written) == 2
    assert written[0][TOKENS[0]] <= written[1][TOKENS[0]]
