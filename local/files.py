"""Writes files of secrets completely or not at all."""

import os
from pathlib import Path


def write(file: Path, text: str) -> None:
    """Puts `text` into `file`, readable by its owner only; a crash leaves the old or the new."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as contents:
        contents.write(text)
        contents.flush()
        os.fsync(descriptor)
    unfinished.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
