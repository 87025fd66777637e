"""What the undo of each kind shares: its page, and the fields of its form."""

from typing import Annotated, Any

from litestar import Response
from litestar.params import QueryParameter

from chassis.errors import Conflict, InvalidInput, LostRace, MooringError
from gateway.administration.fields import MAX_INT32
from gateway.console.pages import page, problem_of
from gateway.console.visitor import ConsoleRequest

HOME = "/console"
SHOWN_IN_PLACE = (InvalidInput, Conflict, LostRace)
# A broker in the address; 0 is no broker.
BrokerOrNone = Annotated[int, QueryParameter(ge=0, le=MAX_INT32)]


class ChangedSince(LostRace):
    """Another change came after the one that is to be undone."""

    def __init__(self) -> None:
        """Says so."""
        super().__init__("it has changed again since: look at it before you change it")


def broker_in(value: int | str | None, name: str) -> int:
    """The field of a form. Raises `InvalidInput`."""
    if not isinstance(value, int) or not 0 <= value <= MAX_INT32:
        raise InvalidInput("must be the id of a broker, or 0", field=name)
    return value


def undo_page(
    request: ConsoleRequest,
    what: str,
    action: str,
    hidden: dict[str, int | float],
    *,
    error: MooringError | None,
    **values: Any,
) -> Response[bytes]:
    """What undoing `what` would do, and a form that posts `hidden` to `action`."""
    problem = problem_of(request, error) if error else None
    status = problem.status if problem else 200
    values |= {"what": what, "action": action, "hidden": hidden, "problem": problem}
    return page(request, "undo.html", status=status, **values)
