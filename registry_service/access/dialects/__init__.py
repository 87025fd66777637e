"""How each broker asks, and the answers it understands."""

from collections.abc import Mapping

from registry_service.access.dialects.asked import Operation
from registry_service.access.dialects.emqx import OPERATIONS as EMQX
from registry_service.access.dialects.mosquitto import OPERATIONS as MOSQUITTO
from registry_service.access.dialects.rabbitmq import OPERATIONS as RABBITMQ
from registry_service.access.dialects.vernemq import OPERATIONS as VERNEMQ

# By the last two segments of the path.
DIALECTS: Mapping[str, Mapping[str, Operation]] = {
    "emqx": EMQX,
    "mosquitto": MOSQUITTO,
    "rabbitmq": RABBITMQ,
    "vernemq": VERNEMQ,
}
