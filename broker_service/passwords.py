"""The brokers' passwords. Each is encrypted for its row and for one destination."""

from dataclasses import dataclass

from broker_service.destinations import Destination, shown
from broker_service.encryption import (
    EncryptionKeys,
    SecretBoundElsewhere,
    SecretNotBound,
    key_id_of,
    place_of,
)
from broker_service.errors import PasswordKeyGone, SecretUnreadable
from chassis.errors import InvalidInput

UNREADABLE = "the password cannot be read: its key is not in the ring, or it was changed by SQL"
UNBOUND = (
    "the password was kept by an earlier version, without the destination that it is for:"
    " run python -m broker_service.reencrypt"
)
ELSEWHERE = (
    "the password was given for {given}, and the broker's address, management, TLS settings or CA"
    " have changed since: give it again by PATCH /api/v1/brokers/{id}"
)
GIVE_AGAIN = (
    "must be given again: it would be sent to another destination than the one it was given for"
)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a broker's destination."""

    broker_id: int
    before: Destination
    after: Destination
    was_managed: bool

    @property
    def is_of_ca_alone(self) -> bool:
        """Whether both are the same server, verified with different CAs."""
        return self.before.differs_in_ca_alone(self.after)


class Passwords:
    """Encrypts and decrypts brokers' passwords with the ring's keys."""

    def __init__(self, keys: EncryptionKeys) -> None:
        """`keys` is the ring."""
        self._keys = keys

    def sealed(self, broker_id: int, password: str, destination: Destination) -> bytes:
        """The stored form of a password that was given for `destination`."""
        place = password_place(broker_id)
        return self._keys.encrypt(password, place=place, destination=destination.encoded())

    def read(self, broker_id: int, kept: bytes, destination: Destination) -> str:
        """The password, to be sent to `destination`.

        Raises `SecretUnreadable`, `SecretNotBound`, `SecretBoundElsewhere`.
        """
        place = password_place(broker_id)
        return self._keys.decrypt(kept, place=place, destination=destination.encoded())

    def is_for(self, broker_id: int, kept: bytes, destination: Destination) -> bool:
        """Whether the stored password may be sent to `destination`."""
        try:
            self.read(broker_id, kept, destination)
        except SecretUnreadable:
            return False
        return True

    def is_current(
        self, broker_id: int, kept: bytes | None, password: str, destination: Destination
    ) -> bool:
        """Whether `kept` is this password, encrypted for `destination` with the active key."""
        if kept is None or key_id_of(kept) != self._keys.active_id:
            return False
        try:
            return password == self.read(broker_id, kept, destination)
        except SecretUnreadable:
            return False

    def kept_through(
        self, change: Change, kept: bytes, *, is_managed: bool, by_admin: bool
    ) -> bytes:
        """The password to store for a change without a password. `is_managed`: whether the broker
        is managed after the change. If an administrator changes the CA of the same address, the
        password becomes valid for the new CA. Raises `InvalidInput` if Mooring would send the
        password to another destination.
        """
        if change.before == change.after and change.was_managed:
            return kept
        if (
            by_admin
            and change.is_of_ca_alone
            and self.is_for(change.broker_id, kept, change.before)
        ):
            return self.moved(change, kept)
        if is_managed and not self.is_for(change.broker_id, kept, change.after):
            raise InvalidInput(GIVE_AGAIN, field="password")
        return kept

    def require_restorable(
        self,
        broker_id: int,
        kept: bytes,
        *,
        now: Destination | None,
        then: Destination,
        is_managed: bool,
    ) -> None:
        """Checks a rollback without a password, of a broker whose destination becomes `then`. `now`
        is the destination at which Mooring manages the broker now; None if the broker is not
        managed or was deleted. Raises `InvalidInput` if the password must be given again, because
        Mooring would send it to another destination than now, or than it was given for. Raises
        `PasswordKeyGone`.
        """
        is_elsewhere = now is not None and now != then
        try:
            self.read(broker_id, kept, then)
        except (SecretNotBound, SecretBoundElsewhere):
            is_elsewhere = True
        except SecretUnreadable:
            raise PasswordKeyGone(
                "the encryption key of its password is no longer in the ring: give the password "
                "with the rollback, or set a new password instead"
            ) from None
        if is_elsewhere and is_managed:
            raise InvalidInput(GIVE_AGAIN, field="password")

    def moved(self, change: Change, kept: bytes) -> bytes:
        """The stored form of the same password for the new destination. Raises the errors of
        `read`.
        """
        password = self.read(change.broker_id, kept, change.before)
        return self.sealed(change.broker_id, password, change.after)


def problem_of(broker_id: int, error: SecretUnreadable) -> str:
    """Why a password is not used, and what to do."""
    if isinstance(error, SecretBoundElsewhere):
        return ELSEWHERE.format(given=shown(error.message), id=broker_id)
    return UNBOUND if isinstance(error, SecretNotBound) else UNREADABLE


def password_place(broker_id: int) -> str:
    """The place of a broker's password, for the encryption. Its history has the same place."""
    return place_of("mqtt_broker_config", "password_encrypted", broker_id)
