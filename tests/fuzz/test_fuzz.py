"""No input makes a parser fail, hang, or give two results for the same input."""

import os
import re

import pytest

from tests.fuzz import TARGETS, target
from tests.fuzz.__main__ import GRACE_S, fuzz
from tests.fuzz.bounded import bounded

SECONDS = float(os.environ.get("FUZZ_S", "5"))
# Even a busy machine tries more inputs.
MIN_RUNS = 50
RUNS = re.compile(r"number_of_executed_units: +(\d+)")


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_shows_a_fault(name: str) -> None:
    fuzzed = target(name)
    for seed in fuzzed.SEEDS:
        bounded(fuzzed.attempt)(seed)


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS + 2 * GRACE_S)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_shows_a_fault(name: str) -> None:
    is_sound, said = fuzz(name, SECONDS)
    assert is_sound, said
    runs = RUNS.search(said)
    assert runs, said
    assert int(runs[1]) >= MIN_RUNS, said
