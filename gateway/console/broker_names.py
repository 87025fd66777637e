"""The names of brokers, for pages that show brokers of devices and let a person choose one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.administration import brokers
from gateway.administration.listing import MAX_LIMIT
from gateway.console.visitor import ConsoleRequest


@dataclass(frozen=True, slots=True)
class BrokerNames:
    """The names of brokers that the person may see, by their ids."""

    names: Mapping[int, str]
    active: Mapping[int, str]
    # Whether these are all brokers. If not, a person enters the id of a broker.
    is_complete: bool

    def of(self, broker_id: int | None) -> str:
        """The name of a broker, or its number if the name is not known."""
        if broker_id is None:
            return "none"
        return self.names.get(broker_id) or f"broker {broker_id}"


# For pages that name no broker.
NO_NAMES = BrokerNames({}, {}, is_complete=True)


async def broker_names(request: ConsoleRequest) -> BrokerNames:
    """The names of the first 500 brokers, to choose one. Raises what the list of brokers raises."""
    listed: Any = await brokers.list_brokers.fn(request, limit=MAX_LIMIT)
    return BrokerNames(
        {broker.id: broker.name for broker in listed.items},
        {broker.id: broker.name for broker in listed.items if broker.is_active},
        listed.next_cursor is None,
    )


async def names_of(request: ConsoleRequest, broker_ids: Iterable[int | None]) -> BrokerNames:
    """The names of these brokers, which takes a tenth of the time. Those of more than 500 brokers
    are not known. Raises what the list of brokers raises.
    """
    wanted = sorted({broker_id for broker_id in broker_ids if broker_id})[:MAX_LIMIT]
    if not wanted:
        return BrokerNames({}, {}, is_complete=False)
    listed: Any = await brokers.list_brokers.fn(request, limit=len(wanted), id=wanted)
    return BrokerNames({broker.id: broker.name for broker in listed.items}, {}, is_complete=False)
