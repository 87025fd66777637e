"""The environment variables of the sealer."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from chassis.config import DatabaseConfig, MetricsConfig


class SealingConfig(DatabaseConfig, MetricsConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "registry_service.audit.sealing"
    renamed: ClassVar[Mapping[str, str]] = {"SEALING_DATABASE_URL": "DATABASE_URL"}
    # Verifying needs the role mooring_operator only.
    database_role: ClassVar[str] = "mooring_sealer"
    shown: ClassVar[frozenset[str]] = frozenset({"audit_archived_seal", "seal_interval_s"})

    audit_keys_file: Path
    # For verifying: the public halves of all keys that have signed tickets. If it is not set,
    # tickets are not checked.
    ticket_public_keys_file: Path | None = None
    # The last seal whose lines were moved elsewhere; 0 if none were.
    audit_archived_seal: int = Field(default=0, ge=0)
    seal_interval_s: float = Field(default=2.0, gt=0)
