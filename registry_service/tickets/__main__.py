"""`python -m registry_service.tickets`: prints the public halves of TICKET_KEYS_FILE.

The output is the content of TICKET_PUBLIC_KEYS_FILE, for the broker service and for the
verification of the audit log.
"""

import argparse
from pathlib import Path
from typing import ClassVar

from chassis.config import ProcessConfig, load
from chassis.tickets import SigningKeys


class TicketsConfig(ProcessConfig):
    """Each field is set by the environment variable of its name in capitals."""

    process: ClassVar[str] = "registry_service.tickets"

    ticket_keys_file: Path


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m registry_service.tickets",
        description="prints the public halves of the ring that TICKET_KEYS_FILE names",
    ).parse_args()
    print(SigningKeys.read(load(TicketsConfig).ticket_keys_file).public_ring(), end="")  # noqa: T201
