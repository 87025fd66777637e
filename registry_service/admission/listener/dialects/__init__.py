"""The dialects: how each kind of broker asks, and which answers it understands."""

from collections.abc import Mapping

from registry_service.admission.listener.dialects.asked import Operation
from registry_service.admission.listener.dialects.emqx import OPERATIONS as EMQX
from registry_service.admission.listener.dialects.mosquitto import OPERATIONS as MOSQUITTO
from registry_service.admission.listener.dialects.rabbitmq import OPERATIONS as RABBITMQ
from registry_service.admission.listener.dialects.vernemq import OPERATIONS as VERNEMQ

# The operations by the last two segments of the path: dialect and operation.
DIALECTS: Mapping[str, Mapping[str, Operation]] = {
    "emqx": EMQX,
    "mosquitto": MOSQUITTO,
    "rabbitmq": RABBITMQ,
    "vernemq": VERNEMQ,
}
