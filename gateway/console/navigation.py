"""The console's menu: which pages there are, and who may see them."""

from dataclasses import dataclass

from litestar.handlers import BaseRouteHandler

from gateway.administration import (
    audit_log,
    brokers,
    certificates,
    device_lists,
    expected_devices,
    fleets,
    jobs,
    pools,
    provisioning_keys,
    regions,
    server_keys,
    service_accounts,
    system,
    tokens,
)
from gateway.console.visitor import Visitor

ON_PHONES = ("/console", "/console/brokers", "/console/devices", "/console/fleets")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the menu."""

    name: str
    path: str
    icon: str
    # The route that the page shows; who may not use it does not see the line. None is for all.
    shows: BaseRouteHandler | None
    # Pressed after g.
    key: str

    @property
    def is_on_phones(self) -> bool:
        """Whether it is in the bar at the bottom of a phone; all lines are at `/console/menu`."""
        return self.path in ON_PHONES


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under a heading, which may be empty."""

    heading: str
    entries: tuple[Entry, ...]


MENU = (
    Section("", (Entry("Overview", "/console", "grid", None, "o"),)),
    Section(
        "Traffic",
        (
            Entry("Brokers", "/console/brokers", "broker", brokers.list_brokers, "b"),
            Entry("Pools", "/console/pools", "link", pools.list_pools, "p"),
            Entry("Regions", "/console/regions", "globe", regions.list_regions, "r"),
            Entry(
                "Certificates",
                "/console/certificates",
                "cert",
                certificates.list_certificates,
                "c",
            ),
        ),
    ),
    Section(
        "Devices",
        (
            Entry("Devices", "/console/devices", "chip", device_lists.list_devices, "d"),
            Entry("Fleets", "/console/fleets", "layers", fleets.list_fleets, "f"),
            Entry(
                "Provisioning keys",
                "/console/provisioning-keys",
                "key",
                provisioning_keys.list_provisioning_keys,
                "k",
            ),
            Entry(
                "Expected devices",
                "/console/expected-devices",
                "expected",
                expected_devices.list_expected_devices,
                "e",
            ),
            Entry("Jobs", "/console/jobs", "jobs", jobs.list_jobs, "j"),
        ),
    ),
    Section(
        "Administration",
        (
            Entry("Audit log", "/console/audit-log", "list", audit_log.list_audit_log, "a"),
            Entry(
                "Service accounts",
                "/console/service-accounts",
                "user",
                service_accounts.list_service_accounts,
                "u",
            ),
            Entry("Tokens", "/console/tokens", "token", tokens.list_tokens, "t"),
            Entry("Server keys", "/console/server-keys", "lock", server_keys.list_server_keys, "v"),
            Entry("System", "/console/system", "server", system.list_processes, "s"),
        ),
    ),
)


def navigation(visitor: Visitor) -> list[Section]:
    """The menu for a person, without the lines that they may not see."""
    sections = [
        Section(
            section.heading,
            tuple(
                entry
                for entry in section.entries
                if entry.shows is None or visitor.may(entry.shows)
            ),
        )
        for section in MENU
    ]
    return [section for section in sections if section.entries]
