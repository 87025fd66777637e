"""What a device is told: its identity, its broker, when to ask again."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2 as pb

from registry_service.credentials import KeyRing, topics_of, username_of
from registry_service.placements import Answer


@dataclass(frozen=True, slots=True)
class Told:
    """A connection, and the broker that its `broker_id` refers to."""

    connection: pb.Connection
    broker: resolution_pb2.BrokerSettings | None


@dataclass(frozen=True, slots=True)
class Teller:
    """Composes connections. `environment_url` is MQTT_BROKER_URL; times are in seconds."""

    ring: KeyRing
    environment_url: str
    refresh_after_s: int
    stopgap_refresh_after_s: int

    def tell(self, uuid: str, salt: str, key_id: int, answer: Answer) -> Told:
        """`salt` and `key_id` are those of the device's credentials."""
        broker = answer.broker
        # All that the answer is made of but when to ask again, so it changes when the answer does.
        made_of = f"{uuid}|{salt}|{key_id}|{answer.source}|" + (
            broker.generation if broker else self.environment_url
        )
        topics = topics_of(uuid)
        connection = pb.Connection(
            username=username_of(uuid),
            password=self.ring.password_of(key_id, uuid, salt),
            source=answer.source,
            broker_id=broker.id if broker else 0,
            generation=hashlib.sha256(made_of.encode()).hexdigest()[:16],
            refresh_after_s=(
                self.stopgap_refresh_after_s if answer.is_stale else self.refresh_after_s
            ),
            stale=answer.is_stale,
            publish_topics=topics,
            subscribe_topics=topics,
        )
        return Told(connection, broker)


def told_ids(answer: Answer) -> list[int]:
    """What `told_broker_ids` holds once a device has been given this answer."""
    return [answer.broker.id] if answer.broker else []


def each_broker_once(told: Iterable[Told]) -> list[resolution_pb2.BrokerSettings]:
    """The brokers that a response carries: a certificate travels once, not once per device."""
    return list({item.broker.id: item.broker for item in told if item.broker}.values())
