"""The state of a broker that a failed step of a probe stands for."""

from broker_service.brokers.testing.outcomes import Fault, Step
from broker_service.health.states import Result
from domain.pools import State

NOT_PROBED = "NOT_PROBED"
MAX_DETAIL = 500
# The broker accepts the connection, and no MQTT answer comes.
SILENT = frozenset({"MQTT_SILENT", "MQTT_CLOSED", "NOT_MQTT"})
# These say nothing about the broker. The policy may refuse its address, because only devices can
# reach it; or it may require a certificate of clients, which Mooring has not.
UNPROBED = {"ADDRESS_REFUSED": NOT_PROBED}
CANNOT = frozenset({"CLIENT_CERTIFICATE_REQUIRED"})
# Mooring itself lacks something; devices may have it.
OWN = frozenset({"PASSWORD_UNUSABLE", "CA_UNREADABLE"})


def result_of(step: Step, fault: Fault) -> Result:
    """The result of a probe with this fault. DNS, TCP, TLS and silence make a broker down; a
    refused login or message makes it degraded, because devices may still be accepted.
    """
    detail = fault.detail[:MAX_DETAIL]
    if fault.reason in UNPROBED:
        return Result(State.UNKNOWN, UNPROBED[fault.reason], detail)
    if fault.reason in CANNOT:
        return Result(State.UNKNOWN, fault.reason, detail)
    is_down = step in (Step.RESOLVE, Step.CONNECT, Step.TLS) or (
        step is Step.LOGIN and fault.reason in SILENT
    )
    if fault.reason in OWN:
        is_down = False
    return Result(State.DOWN if is_down else State.DEGRADED, fault.reason, detail)


def of_standing(fault: Fault) -> Result:
    """The result of a round trip that failed in a session where others had passed. It may be any
    fault, also that the broker is down; the next connection will tell.
    """
    reason = "MQTT_SILENT" if fault.reason == "MESSAGE_LOST" else fault.reason
    detail = "the broker does not answer any more" if reason == "MQTT_SILENT" else fault.detail
    return Result(State.DOWN, reason, detail[:MAX_DETAIL])
