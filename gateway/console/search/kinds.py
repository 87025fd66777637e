"""What can be searched: the list of the API that answers, and what a person should know of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from litestar.handlers import BaseRouteHandler

from gateway.administration import (
    brokers,
    certificates,
    device_lists,
    expected_devices,
    fleets,
    jobs,
    provisioning_keys,
    service_accounts,
    tokens,
)
from gateway.console.search import hits
from gateway.console.search.hits import Hit

Arguments = Callable[[str], Mapping[str, Any]]


def _by_search(search: str) -> Mapping[str, Any]:
    return {"search": search}


def _numbered(noun: str) -> Arguments:
    """A search by the number of a thing; pages write the noun before it."""
    number = re.compile(rf"\s*{noun}\s+#?([0-9]+)\s*", re.IGNORECASE)

    def arguments(search: str) -> Mapping[str, Any]:
        found = number.fullmatch(search)
        return {"search": found[1] if found else search}

    return arguments


@dataclass(frozen=True, slots=True)
class Kind:
    """A list of the API."""

    # In the address of the page that shows this kind alone.
    name: str
    heading: str
    icon: str
    # What of it is searched, for the page of an empty search.
    by: str
    # The JSON route.
    lists: BaseRouteHandler
    hit_of: Callable[[Any], Hit]
    arguments: Arguments = _by_search
    # The page that has all that match, and its parameter; empty if it is the page of the search.
    all_at: str = ""
    parameter: str = ""


KINDS = (
    Kind(
        "devices",
        "Devices",
        "chip",
        "the beginning of the uuid or of the name",
        device_lists.list_devices,
        hits.of_device,
        lambda search: {"wanted": device_lists.wanted(search=search)},
        "/console/devices",
        "search",
    ),
    Kind(
        "expected-devices",
        "Expected devices",
        "expected",
        "the beginning of the uuid, until they register",
        expected_devices.list_expected_devices,
        hits.of_expected_device,
        lambda search: {"uuid_prefix": search, "registered": False},
        "/console/expected-devices",
        "uuid_prefix",
    ),
    Kind(
        "brokers",
        "Brokers",
        "broker",
        "name, host, description or number",
        brokers.list_brokers,
        hits.of_broker,
        _numbered("broker"),
    ),
    Kind("fleets", "Fleets", "layers", "id or name", fleets.list_fleets, hits.of_fleet),
    Kind(
        "rollouts",
        "Rollouts",
        "play",
        "id or name of the fleet",
        fleets.list_fleets,
        hits.of_rollout,
        lambda search: {"search": search, "has_rollout": True},
    ),
    Kind(
        "provisioning-keys",
        "Provisioning keys",
        "key",
        "description, fleet, or the beginning of the id",
        provisioning_keys.list_provisioning_keys,
        hits.of_key,
    ),
    Kind(
        "certificates",
        "Certificates",
        "cert",
        "name, subject, or the beginning of the SHA-256 fingerprint",
        certificates.list_certificates,
        hits.of_certificate,
    ),
    Kind(
        "jobs",
        "Jobs",
        "jobs",
        "number, or the token that made it",
        jobs.list_jobs,
        hits.of_job,
        _numbered("job"),
    ),
    Kind(
        "service-accounts",
        "Service accounts",
        "user",
        "username, description, or the beginning of the id",
        service_accounts.list_service_accounts,
        hits.of_service_account,
    ),
    Kind(
        "tokens",
        "Tokens",
        "token",
        "name, the first characters that the list shows of it, or the beginning of the id",
        tokens.list_tokens,
        hits.of_token,
    ),
)
