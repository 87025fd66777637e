"""The differences between two revisions of a broker, without its secrets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.audit import HIDDEN

# Each column must be in one of these three collections: a test checks that.
COMPARED = (
    *("name", "description", "protocol", "host", "port", "path", "use_tls", "verify_certificate"),
    *("client_id_prefix", "keep_alive", "clean_session", "reconnect_period", "connect_timeout"),
    *("ca_certificate_id", "client_certificate_id", "username", "is_active", "is_default"),
    *("region", "labels", "management", "management_url", "backup_broker_id", "capacity"),
)
# Names of secrets in lists of changes, by their columns.
SECRETS = {"password_encrypted": "password"}
NOT_COMPARED = ("id", "revision", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Change:
    """A field before and after, as JSON values. For a secret, each is `HIDDEN` if there is a secret
    and None if not, as in the audit log.
    """

    before: Any = None
    after: Any = None
    is_secret: bool = False


def differences(
    before: Mapping[Any, Any] | None, after: Mapping[Any, Any] | None
) -> dict[str, Change]:
    """The fields in which two revisions differ, by name. Each argument holds a broker's columns. If
    one is None, because there is no broker, each field of the other that has a value differs. A
    column that only one of them has was added later than the other revision.
    """
    changes: dict[str, Change] = {}
    for name in COMPARED:
        if before is not None and after is not None and not (name in before and name in after):
            continue
        old, new = (before or {}).get(name), (after or {}).get(name)
        if old != new:
            changes[name] = Change(old, new)
    for column, name in SECRETS.items():
        old, new = (before or {}).get(column), (after or {}).get(column)
        if old != new:
            changes[name] = Change(_hidden(old), _hidden(new), is_secret=True)
    return changes


def _hidden(secret: bytes | None) -> str | None:
    return None if secret is None else HIDDEN
