"""What the background process reads from its environment."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BackgroundConfig(BaseSettings):
    """A field is set by the variable of its name in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    # libpq URL; the role mooring_registry.
    registry_database_url: str = Field(pattern=r"\Apostgres(ql)?://")
    # How often to look whether a job was started.
    job_poll_s: float = Field(default=0.5, gt=0)
    # How long nobody else runs jobs after this process' last sign of life.
    job_lease_s: float = Field(default=5.0, gt=0)
    # How long a transaction of the role mqtt_reader may last, and how long one of its sessions.
    reader_transaction_s: float = Field(default=15.0, gt=0)
    reader_session_s: float = Field(default=86_400.0, gt=0)
    # Where to serve /metrics on loopback; off unless set.
    background_metrics_port: int | None = Field(default=None, ge=0, le=65535)
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"
