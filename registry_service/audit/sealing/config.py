"""What the sealer reads from its environment."""

from pathlib import Path

from pydantic import Field

from chassis.config import ProcessConfig


class SealingConfig(ProcessConfig):
    """A field is set by the variable of its name in capitals."""

    # libpq URL; the role mooring_sealer. To verify, mooring_operator will do.
    sealing_database_url: str = Field(pattern=r"\Apostgres(ql)?://")
    audit_keys_file: Path
    # To verify: the public halves of all keys that tickets were signed with. If unset, tickets are
    # not checked.
    ticket_public_keys_file: Path | None = None
    seal_interval_s: float = Field(default=2.0, gt=0)
