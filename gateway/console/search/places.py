"""The pages of the console that a search finds, by their names and by other words for them."""

from dataclasses import dataclass

from litestar.handlers import BaseRouteHandler

from gateway.administration import (
    brokers,
    certificates,
    fleets,
    imports,
    jobs,
    pools,
    provisioning_keys,
    regions,
    service_accounts,
    tokens,
)
from gateway.console.navigation import navigation
from gateway.console.search.hits import Hit
from gateway.console.visitor import Visitor

# Other words for the pages of the menu, by their paths.
WORDS = {
    "/console": "home start dashboard needs registrations latency",
    "/console/brokers": "mqtt default servers",
    "/console/pools": "balance weights failover rebalance members",
    "/console/regions": "places locations nearest",
    "/console/certificates": "ca tls pem x509 rotation expiry",
    "/console/devices": "things sensors uuid pins",
    "/console/fleets": "groups customers waves",
    "/console/provisioning-keys": "installers qr limits registration",
    "/console/expected-devices": "allow list serial numbers",
    "/console/jobs": "bulk move undo progress",
    "/console/audit-log": "history changes who export verify seals",
    "/console/service-accounts": "mqtt users passwords rights",
    "/console/tokens": "api access roles admins",
    "/console/server-keys": "credentials ring encryption",
    "/console/system": "processes versions health loops workers configuration",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A page that is not in the menu."""

    name: str
    path: str
    words: str
    # The route whose right the page needs; None is for all.
    needs: BaseRouteHandler | None


PLACES = (
    Place("Rollouts", "/console/fleets?has_rollout=true", "waves canary", fleets.list_fleets),
    Place("New broker", "/console/brokers/new", "add create", brokers.create_broker),
    Place("New pool", "/console/pools/new", "add create", pools.create_pool),
    Place("New region", "/console/regions/-/new", "add create", regions.create_region),
    Place(
        "New certificate",
        "/console/certificates/new",
        "add upload create",
        certificates.create_certificate,
    ),
    Place("New fleet", "/console/fleets/-/new", "add create", fleets.create_fleet),
    Place(
        "New provisioning key",
        "/console/provisioning-keys/new",
        "add create",
        provisioning_keys.create_provisioning_key,
    ),
    Place("New job", "/console/jobs/new?list=true", "bulk move list", jobs.create_job),
    Place(
        "Import devices",
        "/console/imports/devices",
        "upload csv file spreadsheet",
        imports.import_devices,
    ),
    Place(
        "New service account",
        "/console/service-accounts/new",
        "add create mqtt user",
        service_accounts.create_service_account,
    ),
    Place("New token", "/console/tokens/new", "add create api", tokens.create_token),
    Place("Your token", "/console/tokens/self", "role rights fleets me", None),
    Place("Menu", "/console/menu", "session sign out theme", None),
)


def found(visitor: Visitor, search: str) -> list[Hit]:
    """The pages that the person may see, of which a word begins with each word of the search."""
    wanted = search.casefold().split()
    pages = [
        (Hit(entry.name, entry.path, (entry.name,)), WORDS.get(entry.path, ""))
        for section in navigation(visitor)
        for entry in section.entries
    ]
    pages += [
        (Hit(place.name, place.path, (place.name,)), place.words)
        for place in PLACES
        if place.needs is None or visitor.may(place.needs)
    ]
    return [
        hit
        for hit, words in pages
        if wanted
        and all(
            any(word.startswith(each) for word in f"{hit.title} {words}".casefold().split())
            for each in wanted
        )
    ]
