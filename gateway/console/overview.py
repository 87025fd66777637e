"""The first page: what needs a person, and how things are.

Each question is bounded: no answer grows with the number of devices, brokers or keys.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from litestar import Response, get

from chassis.errors import NotFound
from chassis.trust import Access, WithinFleets
from gateway.administration import (
    audit_log,
    audit_seals,
    broker_history,
    brokers,
    certificate_rotation,
    certificates,
    device_counts,
    devices,
    enforcement,
    jobs,
    provisioning_keys,
    rollouts,
    series,
    system,
)
from gateway.administration.series import RegistrationSeries, SeriesPoint
from gateway.console import charts, needs
from gateway.console.broker_names import names_of
from gateway.console.feed import brokers_in, entries_of
from gateway.console.pages import page
from gateway.console.visitor import ConsoleRequest, Visitor, visitor_of
from gateway.reasons import MEANINGS

BROKERS_SHOWN = 8
CERTIFICATES_SHOWN = 5
REASONS_SHOWN = 6
# The pages of these lists that are looked through: signing in and out are lines too.
LINES_READ = 50
ON_A_PAGE = 50
WIDTH, HEIGHT = 720, 190
SPARK_WIDTH, SPARK_HEIGHT = 240, 38
MARKS = 4


@dataclass(frozen=True, slots=True)
class Tile:
    """A number with its course over the last hour."""

    label: str
    value: str
    unit: str
    note: str
    line: str
    area: str
    is_bad: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why requests of devices were refused; `share` is of the most frequent reason, in percent."""

    name: str
    text: str
    count: int
    share: float


@get("/", access=WithinFleets(Access.VIEWER))
async def overview(request: ConsoleRequest) -> Response[bytes]:
    """The overview."""
    visitor = visitor_of(request)
    now = datetime.now(UTC)
    (
        counted,
        listed,
        ending,
        keys,
        stopped,
        out_of_step,
        unwell,
        lines,
        seals,
        registrations,
    ) = await asyncio.gather(
        _asked(
            request, visitor, device_counts.list_device_counts, limit=BROKERS_SHOWN, order="told"
        ),
        # The counts name the brokers too.
        _asked(
            request,
            visitor,
            brokers.list_brokers,
            is_needed=not visitor.may(device_counts.list_device_counts),
            limit=BROKERS_SHOWN,
        ),
        _asked(
            request,
            visitor,
            certificates.list_certificates,
            limit=CERTIFICATES_SHOWN,
            order="not_after",
            is_used=True,
        ),
        _asked(
            request,
            visitor,
            provisioning_keys.list_provisioning_keys,
            limit=ON_A_PAGE,
            is_active=True,
            used_percent=needs.USED_PERCENT,
        ),
        _asked(request, visitor, jobs.list_jobs, limit=ON_A_PAGE, in_state="paused"),
        _asked(
            request, visitor, enforcement.list_enforcement, limit=needs.AT_MOST, has_problem=True
        ),
        _asked(request, visitor, system.list_processes, limit=needs.AT_MOST, has_problem=True),
        _asked(
            request,
            visitor,
            audit_log.list_audit_log,
            limit=LINES_READ,
            question=audit_log.question(),
        ),
        _asked(request, visitor, audit_seals.get_audit_seals),
        series.get_registration_series.fn(request),
    )
    rotations, names = await asyncio.gather(
        _rotations(request, ending.items if ending else ()),
        names_of(request, brokers_in(lines.items) if lines else ()),
    )
    found: RegistrationSeries = registrations
    # The present minute has not ended, so that its counts would look like a fall.
    points = found.points[:-1] or found.points
    return page(
        request,
        "overview.html",
        needs=[
            *needs.of_seals(seals.check if seals else None, now),
            *needs.of_processes(unwell.items if unwell else (), now),
            *needs.of_brokers(out_of_step.items if out_of_step else ()),
            *needs.of_jobs(stopped.items if stopped else ()),
            *needs.of_certificates(ending.items if ending else (), rotations, now),
            *needs.of_keys(keys.items if keys else (), now),
        ],
        tiles=_tiles(points, found, counted.devices if counted else None),
        plot=charts.plot(
            [point.new_devices + point.known_devices for point in points],
            [point.refused for point in points],
            WIDTH,
            HEIGHT,
        ),
        summary=_summary(points),
        marks=charts.marks([point.at for point in points if point.at], MARKS),
        reasons=_reasons(found),
        counts=counted.items if counted else None,
        shares=charts.shares([sum_of(one) for one in counted.items]) if counted else [],
        sum_of=sum_of,
        brokers=listed.items if listed else [],
        certificates=ending.items if ending else None,
        rotations=rotations,
        entries=entries_of(lines.items, names) if lines else None,
        may_undo={
            "pin": visitor.may(devices.update_device),
            "default": visitor.may(brokers.set_default_broker),
            "broker": visitor.may(broker_history.roll_back_broker),
            "rollout": visitor.may(rollouts.set_rollout),
            "job": visitor.may(jobs.undo_job),
        },
        may_add_broker=visitor.may(brokers.create_broker),
        may_add_key=visitor.may(provisioning_keys.create_provisioning_key),
    )


async def _asked(
    request: ConsoleRequest,
    visitor: Visitor,
    handler: Any,
    *,
    is_needed: bool = True,
    **values: Any,
) -> Any:
    """The answer of a JSON route, or None if it is not needed, or the person may not use it."""
    if not (is_needed and visitor.may(handler)):
        return None
    answer: Awaitable[Any] = handler.fn(request, **values)
    return await answer


async def _rotations(
    request: ConsoleRequest, found: Sequence[Any]
) -> dict[int, certificate_rotation.Rotation]:
    """The rotations of certificates that end soon, by the ids of these certificates."""
    ids = [one.id for one in found if one.replacement_id is not None]
    answers: list[Any] = await asyncio.gather(
        *(certificate_rotation.get_rotation.fn(request, certificate_id=each) for each in ids),
        return_exceptions=True,
    )
    rotations = {}
    for certificate_id, answer in zip(ids, answers, strict=True):
        if isinstance(answer, certificate_rotation.Rotation):
            rotations[certificate_id] = answer
        # A rotation may have ended since the list was read.
        elif not isinstance(answer, NotFound):
            raise answer
    return rotations


def sum_of(counts: device_counts.DeviceCounts) -> int:
    """The devices whose last answer named this broker first."""
    told = counts.told
    return told.device + told.rollout + told.fleet + told.region + told.default + told.unknown


def _tiles(
    points: Sequence[SeriesPoint], found: RegistrationSeries, all_devices: int | None
) -> list[Tile]:
    accepted = [point.new_devices + point.known_devices for point in points]
    refused = [point.refused for point in points]
    new = sum(point.new_devices for point in points)
    requests = sum(accepted) + sum(refused)
    percent = 100 * sum(refused) / requests if requests else 0.0
    tiles = []
    if all_devices is not None:
        note = f"+{new:,} in the last hour"
        course = _course([point.new_devices for point in points])
        tiles.append(
            Tile("Active devices", f"{all_devices:,}", "", note, *course, path="/console/devices")
        )
    peak = max(accepted, default=0)
    last = accepted[-1] if accepted else 0
    tiles.append(
        Tile("Registrations", f"{last:,}", "/ min", f"at most {peak:,}", *_course(accepted))
    )
    tiles.append(
        Tile(
            "Refused",
            f"{percent:.1f}",
            "%",
            f"{sum(refused):,} of {requests:,} in the last hour",
            *_course(refused),
            is_bad=sum(refused) > 0,
        )
    )
    latency = found.latency
    course = _course([point.latency.p95_s for point in points])
    slowest, median = _milliseconds(latency.p99_s), _milliseconds(latency.p50_s)
    tiles.append(Tile("Answered in", slowest, "ms, p99", f"median {median} ms", *course))
    return tiles


def _course(values: Sequence[float | None]) -> tuple[str, str]:
    return charts.spark(values, SPARK_WIDTH, SPARK_HEIGHT)


def _milliseconds(seconds: float | None) -> str:
    return "?" if seconds is None else charts.short(seconds * 1_000)


def _summary(points: Sequence[SeriesPoint]) -> str:
    """The chart in words, for people who do not see it."""
    accepted = [point.new_devices + point.known_devices for point in points]
    refused = sum(point.refused for point in points)
    return (
        f"Registrations per minute over the last {len(points)} minutes: between"
        f" {min(accepted, default=0):,} and {max(accepted, default=0):,} accepted;"
        f" {refused:,} refused in all."
    )


def _reasons(found: RegistrationSeries) -> list[Reason]:
    shown = found.refusals[:REASONS_SHOWN]
    shares = charts.shares([one.count for one in shown])
    return [
        Reason(one.reason, _capitalised(one.reason), one.count, share)
        for one, share in zip(shown, shares, strict=True)
    ]


def _capitalised(reason: str) -> str:
    """The meaning of a reason, which may be one of a newer version, as a sentence begins."""
    text = MEANINGS.get(reason, (0, reason))[1]
    return text[:1].upper() + text[1:]
