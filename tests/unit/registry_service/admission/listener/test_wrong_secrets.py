"""Wrong broker secrets are counted by host, which may have several IPv6 addresses."""

from typing import Any

from registry_service.admission.listener.wrong_secrets import MAX_WRONG, WrongSecrets


class Lines:
    """In place of the audit log."""

    def note_by(self, *_: Any, **__: Any) -> None:
        """Writes nothing."""


def test_all_addresses_of_a_host_are_counted_together() -> None:
    wrong_secrets = WrongSecrets(Lines())  # type: ignore[arg-type]
    counted = [
        wrong_secrets.note(f"2001:db8:1:2::{number:x}", 0.0) for number in range(MAX_WRONG + 1)
    ]
    assert counted == [False] * MAX_WRONG + [True]
    assert not wrong_secrets.note("2001:db8:1:3::1", 0.0)
    assert not wrong_secrets.note("192.0.2.1", 0.0)
