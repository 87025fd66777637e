"""What needs a person now: a sentence, a number and the one step that helps. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.administration.audit_seals import SealCheck
from gateway.administration.certificate_rotation import Rotation
from gateway.administration.certificate_types import ListedCertificate
from gateway.administration.enforcement import ListedEnforcement
from gateway.administration.job_types import Job
from gateway.administration.provisioning_key_types import ListedProvisioningKey
from gateway.administration.system import Process
from gateway.console.process_words import problems_of
from gateway.console.templates import SOON, URGENT, counted, until

# Of each kind. A longer list would hide the others; the pages of each kind have all.
AT_MOST = 4
STATES = {"running": "not all of it works", "lost": "no report", "ended": "it ended"}
# A key with this share of its limit used, in percent, is about to run out.
USED_PERCENT = 90
# The newest seals are checked every minute.
UNCHECKED = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Need:
    """A line of "needs you". `kind` is bad or warn."""

    kind: str
    icon: str
    title: str
    text: str
    path: str
    button: str


def of_brokers(found: Sequence[ListedEnforcement]) -> list[Need]:
    """Managed brokers that do not hold what they should hold."""
    return [
        Need(
            "bad",
            "x",
            f"{broker.name} is not in step.",
            _sentence(broker.problem or "")
            + (
                f" {counted(broker.pending_revocations, 'client', 'clients')} that lost access may"
                " still be connected."
                if broker.pending_revocations
                else ""
            ),
            f"/console/brokers/{broker.broker_id}",
            "See the broker",
        )
        for broker in found[:AT_MOST]
    ]


def of_certificates(
    found: Sequence[ListedCertificate], rotations: Mapping[int, Rotation], now: datetime
) -> list[Need]:
    """Certificates in use that end soon, and the devices that they would cut off. `rotations` are
    by the ids of the certificates that they replace.
    """
    return [
        _certificate(one, one.not_after, rotations.get(one.id), now)
        for one in found
        if one.not_after is not None and one.not_after - now < SOON
    ][:AT_MOST]


def _certificate(
    one: ListedCertificate, ends: datetime, rotation: Rotation | None, now: datetime
) -> Need:
    has_ended = ends <= now
    when = f"ended {until(ends, now)} ago" if has_ended else f"ends in {until(ends, now)}"
    if rotation is None:
        brokers = counted(len(one.broker_ids), "broker", "brokers")
        cut_off = "may be cut off already" if has_ended else "would be cut off"
        text = (
            f"{counted(one.devices or 0, 'device', 'devices')} of {brokers} {cut_off}, and it has"
            " no replacement."
        )
        button = "Replace it…"
    else:
        button = "See the rotation"
        if rotation.too_early is None:
            text, button = "Its replacement is ready, and cutting over is safe.", "Cut over…"
        elif rotation.told is not None:
            told = rotation.told
            all_devices = counted(told.old + told.both + told.new, "device", "devices")
            text = f"{told.old:,} of {all_devices} lack its replacement."
        else:
            text = _sentence(rotation.too_early)
    kind = "bad" if ends - now < URGENT else "warn"
    path = f"/console/certificates/{one.id}/rotation"
    return Need(kind, "clock", f"The certificate “{one.name}” {when}.", text, path, button)


def of_keys(found: Iterable[ListedProvisioningKey], now: datetime) -> list[Need]:
    """Valid keys of whose limit little is left."""
    needs = []
    for key in found:
        is_valid = key.is_active and (key.expires_at is None or key.expires_at > now)
        if not is_valid or key.max_devices is None:
            continue
        left = max(0, key.max_devices - key.devices_provisioned)
        name = key.description or key.id
        title = f"The key “{name}” has {left:,} of {key.max_devices:,} devices left."
        text = f"Fleet {key.fleet_id}." + ("" if left else " New devices are refused.")
        path = f"/console/provisioning-keys/{key.id}"
        kind = "warn" if left else "bad"
        needs.append(Need(kind, "key", title, text, path, "Raise its limit…"))
    return sorted(needs, key=lambda need: need.kind)[:AT_MOST]


def of_jobs(found: Iterable[Job]) -> list[Need]:
    """Jobs that failed and wait for a person."""
    return [
        Need(
            "bad",
            "jobs",
            f"Job {job.id} stopped after {job.progress:.0%}.",
            _sentence(job.failure),
            f"/console/jobs/{job.id}",
            "See the job",
        )
        for job in found
        if job.failure
    ][:AT_MOST]


def of_processes(found: Iterable[Process], now: datetime) -> list[Need]:
    """Processes that do not do their work, or are gone."""
    return [
        Need(
            "bad",
            "server",
            f"{process.process} on {process.host}: {STATES[process.state]}.",
            " ".join(problems_of(process, now)),
            "/console/system",
            "See the processes",
        )
        for process in found
    ][:AT_MOST]


def of_seals(check: SealCheck | None, now: datetime) -> list[Need]:
    """An audit log that does not verify, or that is no longer checked."""
    path = "/console/audit-log"
    if check is None or check.checked_at is None:
        return []
    if check.findings:
        title = "The audit log does not verify."
        first = check.findings[0]
        text = _sentence(first.detail)
        if first.line_ids:
            text += f" The first is line {first.line_ids[0]}."
        if others := len(check.findings) - 1:
            text += f" {counted(others, 'other fault', 'other faults')}."
        return [Need("bad", "lock", title, text, path, "See the faults")]
    if now - check.checked_at > UNCHECKED:
        title = f"The audit log was not checked for {until(check.checked_at, now)}."
        text = "The process that seals it does not run, or does not reach the database."
        return [Need("warn", "lock", title, text, path, "See the seals")]
    return []


def _sentence(text: str) -> str:
    """The text of a service as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
