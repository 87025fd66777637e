"""Tests whether devices could connect to a broker, step by step."""
