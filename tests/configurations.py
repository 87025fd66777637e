"""The configuration classes of processes and commands, found by importing all modules."""

import contextlib
import importlib

from chassis.config import ProcessConfig
from tests import REPOSITORY

PACKAGES = ("broker_service", "registry_service", "gateway", "local")
MAKE_RUN = "make run"


def configurations() -> dict[str, list[type[ProcessConfig]]]:
    """The classes by process or command; a process reads its environment with one or several."""
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            # Modules with the earlier names of commands print the new ones and exit.
            with contextlib.suppress(SystemExit):
                importlib.import_module(
                    ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
                )
    found: dict[str, list[type[ProcessConfig]]] = {}
    for kind in _below(ProcessConfig):
        if kind.__module__.split(".")[0] in PACKAGES and "process" in vars(kind):
            found.setdefault(kind.process, []).append(kind)
    return found


def variables(kinds: list[type[ProcessConfig]]) -> set[str]:
    """The names of the variables of the fields."""
    return {field.upper() for kind in kinds for field in kind.model_fields}


def _below(kind: type[ProcessConfig]) -> set[type[ProcessConfig]]:
    return {below for each in kind.__subclasses__() for below in (each, *_below(each))}
