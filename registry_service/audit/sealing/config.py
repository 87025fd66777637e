"""What the sealer reads from its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SealingConfig(BaseSettings):
    """A field is set by the variable of its name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    # libpq URL; the role mooring_sealer. To verify, mooring_operator will do.
    sealing_database_url: str = Field(pattern=r"\Apostgres(ql)?://")
    audit_keys_file: Path
    # To verify: the public halves of all keys that tickets were signed with. If unset, tickets are
    # not checked.
    ticket_public_keys_file: Path | None = None
    seal_interval_s: float = Field(default=2.0, gt=0)
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
