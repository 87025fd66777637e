"""A password is valid at the brokers of one answer, and a stopgap changes nothing."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from mooring.broker.v1 import resolution_pb2 as pb

from registry_service.provisioning.answer import needs_another_password
from registry_service.provisioning.choices import Answer

IDS = st.integers(1, 5)
SETS = st.lists(IDS, unique=True, max_size=3)


def answer(broker_id: int | None, *, is_stale: bool = False) -> Answer:
    if broker_id is None:
        return Answer(pb.SOURCE_ENVIRONMENT, None, is_stale)
    return Answer(pb.SOURCE_DEFAULT, pb.BrokerSettings(id=broker_id), is_stale)


@given(SETS, IDS, st.booleans())
def test_only_a_primary_broker_outside_of_the_set_needs_another_password(
    made_for: list[int], broker_id: int, is_stale: bool
) -> None:
    needed = needs_another_password(made_for, answer(broker_id, is_stale=is_stale))
    assert needed == (not is_stale and broker_id not in made_for)


@given(SETS, st.booleans())
def test_the_environments_url_never_needs_another(made_for: list[int], is_stale: bool) -> None:
    assert not needs_another_password(made_for, answer(None, is_stale=is_stale))


class Device:
    """A device's row as answers change it; the password is a number."""

    def __init__(self, reply: list[int]) -> None:
        self.password, self.made_for = 0, reply

    def ask(self, reply: Answer, fallbacks: Sequence[int]) -> int:
        if needs_another_password(self.made_for, reply):
            assert reply.broker is not None
            self.password += 1
            self.made_for = [reply.broker.id, *fallbacks]
        return self.password


@given(SETS, st.lists(st.tuples(st.none() | IDS, st.booleans(), SETS), max_size=20))
def test_repeating_a_question_gives_the_same_password(
    first: list[int], answers: list[tuple[int | None, bool, list[int]]]
) -> None:
    device = Device(first)
    known_to: dict[int, set[int]] = {}  # by broker: the passwords that decided answers sent to it
    for broker_id, is_stale, fallbacks in answers:
        before, reply = device.password, answer(broker_id, is_stale=is_stale)
        password = device.ask(reply, fallbacks)
        assert device.ask(reply, fallbacks) == password
        if is_stale or broker_id is None:
            assert password == before
            continue
        assert broker_id in device.made_for
        known_to.setdefault(broker_id, set()).add(password)
        for other, passwords in known_to.items():
            assert password not in passwords or other in device.made_for
