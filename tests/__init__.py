"""Tests. Units and integration tests lie as the sources do."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
