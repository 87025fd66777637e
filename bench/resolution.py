"""Questions for the broker service, and a check of its answers."""

from collections.abc import Sequence
from random import Random

import grpc
from mooring.broker.v1 import resolution_pb2

from bench import crowd
from bench.errors import CannotMeasure
from bench.h2load import Call
from bench.stage import Services

ONE = "/mooring.broker.v1.ResolutionService/ResolveBroker"
MANY = "/mooring.broker.v1.ResolutionService/ResolveBrokers"
PATIENCE_S = 10.0


def call(services: Services, method: str) -> Call:
    """A call of `method` with the metadata of our services."""
    return Call(
        services.broker_address,
        method,
        (
            ("authorization", f"Bearer {services.resolver_secret}"),
            ("mooring-request-id", "bench"),
        ),
    )


def questions(count: int, uuids: int | None = None) -> list[bytes]:
    """Messages that ask for different devices of the crowd.

    Each asks for one device, or for `uuids` of them.
    """
    random = Random()  # noqa: S311 - devices, not secrets
    if uuids is None:
        return [
            resolution_pb2.ResolveBrokerRequest(device_uuid=uuid).SerializeToString()
            for uuid in _some(random, count)
        ]
    return [
        resolution_pb2.ResolveBrokersRequest(
            subjects=[resolution_pb2.Subject(device_uuid=uuid) for uuid in _some(random, uuids)]
        ).SerializeToString()
        for _ in range(count)
    ]


def answer(to: Call, questions: Sequence[bytes]) -> bytes:
    """The answer to each of `questions`, by an ordinary call.

    Raises `CannotMeasure` unless all devices are known, go to the default broker with its
    certificate, and all answers have the same length.
    """
    with grpc.insecure_channel(to.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(to.method)
        try:
            answers = [ask(one, timeout=PATIENCE_S, metadata=to.metadata) for one in questions]
        except grpc.RpcError as error:
            raise CannotMeasure(f"{to.method} fails: {error}") from None
    for given in answers:
        if not _is_right(to.method, given) or len(given) != len(answers[0]):
            raise CannotMeasure(f"{to.method} is answered wrongly")
    return bytes(answers[0])


def _some(random: Random, count: int) -> list[str]:
    return [crowd.uuid(number) for number in random.sample(range(1, crowd.DEVICES + 1), count)]


def _is_right(method: str, answer: bytes) -> bool:
    if method == ONE:
        one = resolution_pb2.ResolveBrokerResponse.FromString(answer)
        resolutions, brokers = [one.resolution], [one.broker]
    else:
        many = resolution_pb2.ResolveBrokersResponse.FromString(answer)
        resolutions = [outcome.resolution for outcome in many.outcomes]
        brokers = list(many.brokers)
    return (
        all(
            resolution.known and resolution.source == resolution_pb2.SOURCE_DEFAULT
            for resolution in resolutions
        )
        and len(brokers) == 1
        and brokers[0].ca_cert.startswith("-----BEGIN CERTIFICATE-----")
    )
