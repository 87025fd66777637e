"""Verdicts are counted in a metric for Prometheus."""

from prometheus_client import CollectorRegistry, generate_latest

from registry_service.admission.listener.verdicts import Verdicts
from registry_service.admission.questions import Connect, Publish


def test_verdicts_are_counted_by_question_and_reason() -> None:
    verdicts, registry = Verdicts(), CollectorRegistry()
    registry.register(verdicts)
    verdicts.note("emqx", Connect, "")
    verdicts.note("emqx", Connect, "")
    verdicts.note("vernemq", Publish, "TOPIC_NOT_GRANTED")
    verdicts.note("vernemq", None, "UNREADABLE")
    lines = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    name = "mooring_access_verdicts_total"
    assert lines == [
        f'{name}{{dialect="emqx",question="connect",reason=""}} 2.0',
        f'{name}{{dialect="vernemq",question="publish",reason="TOPIC_NOT_GRANTED"}} 1.0',
        f'{name}{{dialect="vernemq",question="",reason="UNREADABLE"}} 1.0',
    ]
