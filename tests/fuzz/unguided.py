"""Fuzzes one target without atheris: it changes seeds at random, without coverage."""

import random
import sys
import time
from pathlib import Path

from tests.fuzz import MAX_BYTES, target
from tests.fuzz.bounded import bounded, quiet
from tests.fuzz.changes import PIECES, changed


def main(name: str, seconds: str, folder: str) -> None:
    quiet()
    fuzzed = target(name)
    attempt = bounded(fuzzed.attempt)
    chance = random.Random(time.time_ns())  # noqa: S311 - the inputs are no secrets
    pieces = (*PIECES, *fuzzed.WORDS)
    until, runs, data = time.monotonic() + float(seconds), 0, b""
    try:
        for data in fuzzed.SEEDS:
            attempt(data)
        while time.monotonic() < until:
            data = changed(chance.choice(fuzzed.SEEDS), chance, pieces)[:MAX_BYTES]
            attempt(data)
            runs += 1
    except Exception:
        (Path(folder) / "found-error").write_bytes(data)
        raise
    print(f"stat::number_of_executed_units: {runs}")  # noqa: T201 - as libFuzzer says it


if __name__ == "__main__":
    main(*sys.argv[1:])
