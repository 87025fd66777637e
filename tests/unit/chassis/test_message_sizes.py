"""The number of commands in one message: the broker does nothing else while it carries them out."""

import pytest

from registry_service.admission.reconciler.mosquitto_client import BATCH, LEAST, MOST, next_size

MESSAGES = 100


def last_size(command_s: float, message_s: float) -> int:
    """The last size, for a broker that takes so long for each command and each message."""
    size = BATCH
    for _ in range(MESSAGES):
        size = next_size(size, size * command_s + message_s)
    return size


@pytest.mark.parametrize(
    ("command_s", "message_s", "size"),
    [
        # Mosquitto 2.1 writes its file once for each message.
        (0.0001, 0.02, MOST),
        # Mosquitto 2.0: few clients, a thousand on an idle machine, a thousand on a busy one.
        (0.0005, 0.001, 100),
        (0.01, 0.001, 12),
        (0.06, 0.001, LEAST),
        (10, 10, LEAST),
    ],
)
def test_messages_keep_the_broker_busy_for_a_short_time(
    command_s: float, message_s: float, size: int
) -> None:
    assert last_size(command_s, message_s) == size
