"""The peak memory of a process."""

from pathlib import Path


def forget_peak(pid: int) -> None:
    """Resets what `peak_mb` returns."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The most memory that was resident at once since the last reset, in 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024 / 1e6
    raise ProcessLookupError(pid)
