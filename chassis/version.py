"""The version of Mooring."""

VERSION = "0.1.0"
