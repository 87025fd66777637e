"""When reports of devices count against a broker that the probes can reach.

Anyone with a provisioning key can make up devices, and so their reports. So reports count only if
they come from several fleets, and never say more than that a broker is degraded: it gets no new
devices, and loses none.
"""

from dataclasses import dataclass

MIN_DEVICES = 20
MIN_FLEETS = 3
# Of the devices that reported, more than this share must fail.
FAILING_SHARE = 0.5
# The reason of the state `degraded`.
REASON = "DEVICES_CANNOT_REACH"


@dataclass(frozen=True, slots=True)
class Reports:
    """What devices say of a broker: a device that fails is not counted as connected."""

    failing_devices: int = 0
    failing_fleets: int = 0
    connected_devices: int = 0


def is_out_of_reach(reports: Reports) -> bool:
    """Whether so many devices cannot reach the broker that it is degraded, though probes pass."""
    reporting = reports.failing_devices + reports.connected_devices
    return (
        reports.failing_devices >= MIN_DEVICES
        and reports.failing_fleets >= MIN_FLEETS
        and reports.failing_devices > FAILING_SHARE * reporting
    )
