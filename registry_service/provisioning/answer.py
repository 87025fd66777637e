"""The answer to a device: its identity, its broker, when to ask again."""

import hashlib
from collections.abc import Collection, Iterable

from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2 as pb
from msgspec import Struct

from registry_service.credentials import (
    fingerprint_of,
    hash_of_password,
    topics_of,
    username_of,
)
from registry_service.provisioning.placements import Answer
from registry_service.provisioning.records import Note

# Names of sources in the database: SOURCE_FLEET is fleet.
SOURCES = {
    source: name.removeprefix("SOURCE_").lower() for name, source in resolution_pb2.Source.items()
}


class Told(Struct, frozen=True):
    """How a device connects, and to which broker; times are in seconds."""

    username: str
    password: str
    answer: Answer
    # The source in answers to devices, which see a rollout as the broker of their fleet.
    source: resolution_pb2.Source.ValueType
    generation: str
    refresh_after_s: int
    topics: list[str]
    # The fingerprint under which the broker must hold the device; empty if the broker asks Mooring.
    held_as: str = ""
    # Whether the fingerprint was changed now or a moment ago.
    is_newly_told: bool = False


class Teller(Struct, frozen=True):
    """Composes answers to devices. `environment_url` is MQTT_BROKER_URL; times in seconds."""

    environment_url: str
    refresh_after_s: int
    stopgap_refresh_after_s: int

    def tell(
        self,
        uuid: str,
        salt: str,
        key_id: int,
        password: str,
        answer: Answer,
        *,
        is_newly_told: bool = False,
    ) -> Told:
        """`salt`, `key_id` and `password` are those of the device's credentials."""
        broker, source = answer.broker, answer.source
        if source == resolution_pb2.SOURCE_ROLLOUT:
            source = resolution_pb2.SOURCE_FLEET
        # Covers all of the answer except when to ask again, so it changes with the answer.
        made_of = f"{uuid}|{salt}|{key_id}|{source}|" + (
            broker.generation if broker else self.environment_url
        )
        return Told(
            username_of(uuid),
            password,
            answer,
            source,
            hashlib.sha256(made_of.encode()).hexdigest()[:16],
            self.stopgap_refresh_after_s if answer.is_stale else self.refresh_after_s,
            topics_of(uuid),
            fingerprint_of(salt, hash_of_password(salt, password))
            if broker is not None and broker.is_told
            else "",
            is_newly_told,
        )


def write_connection(told: Told, connection: pb.Connection) -> None:
    """Fills in the message in place, because thousands a second are written."""
    answer = told.answer
    connection.username = told.username
    connection.password = told.password
    connection.source = told.source
    connection.broker_id = answer.broker.id if answer.broker else 0
    connection.generation = told.generation
    connection.refresh_after_s = told.refresh_after_s
    connection.stale = answer.is_stale
    if told.held_as:
        connection.held_as = told.held_as
        connection.newly_told = told.is_newly_told
    connection.publish_topics.extend(told.topics)
    connection.subscribe_topics.extend(told.topics)


def note_of(answer: Answer) -> Note:
    """What a device's row records about this answer."""
    broker, source = answer.broker, SOURCES[answer.source]
    if broker is None:
        return Note([], source, [])
    return Note([broker.id], source, list(broker.ca_certificate_ids))


def is_waited_for(told: Told) -> bool:
    """Whether the broker must hold the device before the device can connect."""
    return told.is_newly_told and bool(told.held_as)


def needs_another_password(salt_broker_ids: Collection[int], answer: Answer) -> bool:
    """Whether this answer sends a device to a primary broker that its salt was not made for.

    With the same password, the operator of one broker could connect to the next. A stopgap and
    MQTT_BROKER_URL do not count, because the device may get its broker back within minutes.
    """
    broker = answer.broker
    return broker is not None and not answer.is_stale and broker.id not in salt_broker_ids


def each_broker_once(told: Iterable[Told]) -> list[resolution_pb2.BrokerSettings]:
    """The brokers of a response, so that each certificate is sent once, and not once per device."""
    # A batch has few different brokers, each as one object.
    answers = {id(item.answer): item.answer for item in told}.values()
    brokers = (answer.broker for answer in answers if answer.broker)
    return list({broker.id: broker for broker in brokers}.values())
