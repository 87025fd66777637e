"""What a search shows of each thing that it finds. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from gateway.console import provisioning_keys, service_accounts, tokens
from gateway.console.job_words import STATES
from gateway.console.templates import expiry, link

ACTIVE = ("ok", "Active", "check")


@dataclass(frozen=True, slots=True)
class Hit:
    """A line of what was found."""

    title: str
    path: str
    # Texts of which one is equal to what is searched for if the hit is exact.
    names: tuple[str, ...] = ()
    detail: str = ""
    # The kind, the word and the icon of its state.
    state: tuple[str, str, str] | None = None

    def is_exact(self, search: str) -> bool:
        """Whether it is named like this, in any case of letters."""
        return search.casefold() in (name.casefold() for name in self.names)


def exact_first(hits: Iterable[Hit], search: str) -> list[Hit]:
    """The same hits; those that are exact come first."""
    return sorted(hits, key=lambda hit: not hit.is_exact(search))


def of_device(device: Any) -> Hit:
    """A device, with its uuid and its fleet."""
    state = ACTIVE
    if not device.is_active:
        state = ("off", "Disabled", "off")
    elif device.is_online:
        state = ("ok", "Online", "bolt")
    return Hit(
        device.device_name or device.uuid,
        f"/console/devices/{quote(device.uuid, safe='')}",
        (device.uuid, device.device_name or ""),
        _joined(device.uuid, f"fleet {device.fleet_id}"),
        state,
    )


def of_expected_device(expected: Any) -> Hit:
    """A device that has not registered yet. It has no page of its own."""
    return Hit(
        expected.device_name or expected.uuid,
        link("/console/expected-devices", uuid_prefix=expected.uuid),
        (expected.uuid,),
        _joined(expected.uuid, f"fleet {expected.fleet_id}"),
        ("info", "Expected", "clock"),
    )


def of_broker(broker: Any) -> Hit:
    """A broker, with its address."""
    host = f"[{broker.host}]" if ":" in broker.host else broker.host
    address = f"{broker.protocol}://{host}:{broker.port}{broker.path or ''}"
    state = ACTIVE if broker.is_active else ("off", "Inactive", "pause")
    return Hit(
        broker.name,
        f"/console/brokers/{broker.id}",
        (broker.name, broker.host, str(broker.id)),
        _joined(f"broker {broker.id}", address, "the default" if broker.is_default else ""),
        state,
    )


def of_fleet(fleet: Any) -> Hit:
    """A fleet, with its id."""
    return Hit(
        fleet.name,
        _path_of_fleet(fleet),
        (fleet.id, fleet.name),
        f"fleet {fleet.id}",
        ACTIVE if fleet.is_active else ("off", "Disabled", "pause"),
    )


def of_rollout(fleet: Any) -> Hit:
    """The rollout of a fleet; it has no name of its own."""
    return Hit(
        f"Rollout of {fleet.name}",
        f"{_path_of_fleet(fleet)}#rollout-title",
        detail=f"to broker {fleet.rollout.broker_id}",
        state=("info", f"{fleet.rollout.percent:g} % of the fleet", "play"),
    )


def of_key(key: Any) -> Hit:
    """A provisioning key, with its fleet and its id, which is not the key."""
    return Hit(
        key.description or key.id,
        f"/console/provisioning-keys/{key.id}",
        (key.description or "", key.id),
        _joined(f"fleet {key.fleet_id}", key.id),
        provisioning_keys.state_of(key, datetime.now(UTC)),
    )


def of_certificate(certificate: Any) -> Hit:
    """A certificate, with its subject and when it ends."""
    end = expiry(certificate.not_after)
    return Hit(
        certificate.name,
        f"/console/certificates/{certificate.id}",
        (certificate.name, certificate.fingerprint_sha256, str(certificate.id)),
        _joined(certificate.subject, f"fingerprint {certificate.fingerprint_sha256[:16]}…"),
        (end.kind, end.text, end.icon),
    )


def of_job(job: Any) -> Hit:
    """A job, with the token that made it."""
    word, kind, icon = STATES[job.state]
    what = "remove pins" if job.mqtt_broker_id is None else f"pin to broker {job.mqtt_broker_id}"
    return Hit(
        f"Job {job.id}",
        f"/console/jobs/{job.id}",
        (str(job.id), f"job {job.id}"),
        _joined(what, f"made by {job.actor}"),
        (kind, word, icon),
    )


def of_service_account(account: Any) -> Hit:
    """A service account."""
    return Hit(
        account.username,
        f"/console/service-accounts/{account.id}",
        (account.username, account.id),
        account.description or "",
        service_accounts.state_of(account, datetime.now(UTC)),
    )


def of_token(token: Any) -> Hit:
    """An API token, with its first characters."""
    return Hit(
        token.name,
        f"/console/tokens/{token.id}",
        (token.name, token.prefix, token.id),
        _joined(token.role, f"{token.prefix}…"),
        tokens.state_of(token, datetime.now(UTC)),
    )


def _path_of_fleet(fleet: Any) -> str:
    return f"/console/fleets/{quote(fleet.id, safe='')}"


def _joined(*texts: str) -> str:
    return " · ".join(text for text in texts if text)
