"""The answer to a device: its identity, its broker, when to ask again."""

import hashlib
from collections.abc import Collection, Iterable

from mooring.broker.v1 import resolution_pb2
from mooring.registry.v1 import registration_pb2 as pb
from msgspec import Struct

from registry_service.activity.recording import Activity
from registry_service.credentials import (
    fingerprint_of,
    hash_of_password,
    topics_of,
    username_of,
)
from registry_service.provisioning.choices import Answer
from registry_service.provisioning.records import Device, Note

# Names of sources in the database: SOURCE_FLEET is fleet.
SOURCES = {
    source: name.removeprefix("SOURCE_").lower() for name, source in resolution_pb2.Source.items()
}


AS_SEEN = {
    resolution_pb2.SOURCE_ROLLOUT: resolution_pb2.SOURCE_FLEET,
    resolution_pb2.SOURCE_DEFAULT_POOL: resolution_pb2.SOURCE_DEFAULT,
}


class DeviceAnswer(Struct, frozen=True):
    """What a device gets: how it connects, and to which broker. Times are in seconds."""

    username: str
    password: str
    answer: Answer
    # The source as devices see it: a rollout's broker is the broker of the fleet, and the default
    # pool is the default.
    source: resolution_pb2.Source.ValueType
    generation: str
    refresh_after_s: int
    topics: list[str]
    # The fingerprint under which the broker must hold the device; empty if the broker asks Mooring.
    held_as: str = ""
    # Whether the fingerprint was changed now or a moment ago.
    is_newly_notified: bool = False


class AnswerComposer(Struct, frozen=True):
    """Composes answers to devices. `environment_url` is MQTT_BROKER_URL; times in seconds."""

    environment_url: str
    refresh_after_s: int
    stopgap_refresh_after_s: int

    def compose(
        self,
        uuid: str,
        salt: str,
        key_id: int,
        password: str,
        answer: Answer,
        *,
        is_newly_notified: bool = False,
    ) -> DeviceAnswer:
        """The answer. `salt`, `key_id` and `password` come from the device's credentials."""
        broker, source = answer.broker, answer.source
        source = AS_SEEN.get(source, source)
        # The generation covers the whole answer except `refresh_after_s` and the situation.
        made_of = f"{uuid}|{salt}|{key_id}|{source}|" + (
            broker.generation if broker else self.environment_url
        )
        for fallback in answer.fallbacks:
            made_of += f"|{fallback.generation}"
        return DeviceAnswer(
            username_of(uuid),
            password,
            answer,
            source,
            hashlib.sha256(made_of.encode()).hexdigest()[:16],
            self.stopgap_refresh_after_s if answer.is_stopgap else self.refresh_after_s,
            topics_of(uuid),
            fingerprint_of(salt, hash_of_password(salt, password))
            if broker is not None and broker.is_told
            else "",
            is_newly_notified,
        )


def write_connection(answer: DeviceAnswer, connection: pb.Connection) -> None:
    """Fills in the message in place, because thousands a second are written."""
    resolved = answer.answer
    connection.username = answer.username
    connection.password = answer.password
    connection.source = answer.source
    connection.broker_id = resolved.broker.id if resolved.broker else 0
    connection.generation = answer.generation
    connection.refresh_after_s = answer.refresh_after_s
    connection.stale = resolved.is_stale
    connection.situation = resolved.situation
    connection.fallback_broker_ids.extend(one.id for one in resolved.fallbacks)
    if answer.held_as:
        connection.held_as = answer.held_as
        connection.newly_told = answer.is_newly_notified
    connection.publish_topics.extend(answer.topics)
    connection.subscribe_topics.extend(answer.topics)


def note_of(answer: Answer, home_id: int | None = None) -> Note:
    """What a device's row records about this answer. The home is the device's own, until a pool
    gives it another.
    """
    told = answer.all_told
    ca_ids = dict.fromkeys(ca_id for broker in told for ca_id in broker.ca_certificate_ids)
    if answer.home_id is not None:
        home_id = answer.home_id
    return Note([broker.id for broker in told], SOURCES[answer.source], list(ca_ids), home_id)


def note_changed(
    activity: Activity, device: Device, answer: Answer, generation: str, address: str
) -> None:
    """Records that a device got another answer than the one that its row records."""
    before, after = device.note, note_of(answer, device.note.home_broker_id)
    activity.answer_changed(
        device.uuid,
        address,
        generation,
        {
            "before": {"broker_ids": before.told_broker_ids, "source": before.told_source},
            "after": {"broker_ids": after.told_broker_ids, "source": after.told_source},
        },
    )


def is_waited_for(answer: DeviceAnswer) -> bool:
    """Whether the broker must hold the device before the device can connect."""
    return answer.is_newly_notified and bool(answer.held_as)


def needs_another_password(salt_broker_ids: Collection[int], answer: Answer) -> bool:
    """Whether this answer names a broker that the device's salt was not made for.

    With the same password, the operator of one broker could connect to the next. A stopgap and
    MQTT_BROKER_URL do not count, because the device may get its broker back within minutes.
    """
    if answer.is_stale:
        return False
    return any(broker.id not in salt_broker_ids for broker in answer.all_told)


def each_broker_once(answers: Iterable[DeviceAnswer]) -> list[resolution_pb2.BrokerSettings]:
    """The brokers of a response, so that each certificate is sent once, and not once per device."""
    # The answers of a batch share few resolutions, which are the same objects.
    resolved = {id(item.answer): item.answer for item in answers}.values()
    brokers = (broker for answer in resolved for broker in answer.all_told)
    return list({broker.id: broker for broker in brokers}.values())
