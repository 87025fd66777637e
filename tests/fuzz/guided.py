"""Fuzzes one target with atheris, which keeps inputs that reach code no earlier input reached.

https://github.com/google/atheris; options of libFuzzer: https://llvm.org/docs/LibFuzzer.html.
"""

import sys
from pathlib import Path

import atheris

from tests.fuzz import MAX_BYTES, MEASURED, target
from tests.fuzz.bounded import bounded, quiet

# Limits for one input. The first is a backstop: `bounded` measures processor time.
HANGING_S = 30
MAX_MEGABYTES = 1_024


def main(name: str, seconds: str, folder: str) -> None:
    quiet()
    with atheris.instrument_imports(include=list(MEASURED)):
        fuzzed = target(name)
    seeds, words = Path(folder) / "seeds", Path(folder) / "words"
    seeds.mkdir()
    for index, seed in enumerate(fuzzed.SEEDS):
        (seeds / str(index)).write_bytes(seed)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in fuzzed.WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    options = [
        f"-max_total_time={max(1, round(float(seconds)))}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={HANGING_S}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-artifact_prefix={folder}/found-",
        f"-dict={words}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(seeds)], bounded(fuzzed.attempt))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
