"""The tests. Unit and integration tests are in folders like those of the sources."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
