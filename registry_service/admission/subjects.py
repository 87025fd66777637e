"""The clients of brokers: devices and service accounts, with the columns that admit them."""

from msgspec import Struct, field

from registry_service.passwords import Password


class Subject(Struct, frozen=True, kw_only=True):
    """A device or a service account, as it was read."""

    username: str
    # The uuid of a device; empty for a service account.
    uuid: str = ""
    fleet_id: str = ""
    # Whether it is enabled; for a device, the fleet too.
    is_active: bool = True
    # The brokers that admit it; None if all do.
    broker_ids: list[int] | None = None
    password: Password
    # The previous password, and the time until which it is accepted (Unix seconds).
    previous: Password | None = None
    previous_until: float = 0.0
    # The brokers that accept the previous password; None if all that admit the device do.
    previous_broker_ids: list[int] | None = None
    # When the account ends (Unix seconds).
    expires_at: float | None = None
    # The topic filters that it may publish and subscribe to.
    publish: list[str] = field(default_factory=list)
    subscribe: list[str] = field(default_factory=list)
