"""`python -m registry_service.tickets`: prints the public halves of TICKET_KEYS_FILE.

They are the TICKET_PUBLIC_KEYS_FILE of the broker service and of the verification of the audit log.
"""

import argparse
from pathlib import Path
from typing import ClassVar

from chassis.config import ProcessConfig, load
from chassis.tickets import SigningKeys


class TicketsConfig(ProcessConfig):
    """A field is set by the variable of its name in capitals."""

    process: ClassVar[str] = "registry_service.tickets"

    ticket_keys_file: Path


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m registry_service.tickets",
        description="prints the public halves of the ring that TICKET_KEYS_FILE names",
    ).parse_args()
    print(SigningKeys.read(load(TicketsConfig).ticket_keys_file).public_ring(), end="")  # noqa: T201
