"""Decides which clients a broker holds as wanted while a plan is being carried out."""

from collections import Counter
from collections.abc import Iterable

from registry_service.admission.reconciler.dynamic_security import Command, username_of_role
from registry_service.admission.reconciler.planning import Plan


class Progress:
    """Follows the commands of one plan, in the order in which they are answered."""

    def __init__(self, plan: Plan) -> None:
        """No command of the plan is answered yet."""
        self._awaited = {*plan.created, *plan.changed}
        self._left = Counter(_username_of(command) for command in plan.commands)

    def take(self, answered: Iterable[tuple[Command, bool]]) -> list[str]:
        """The clients for which these were the last commands, and all were carried out. Each answer
        is false if the broker refused the command.
        """
        finished = []
        for command, is_done in answered:
            username = _username_of(command)
            self._left[username] -= 1
            if not is_done:
                self._awaited.discard(username)
            elif not self._left[username] and username in self._awaited:
                finished.append(username)
        return finished


def _username_of(command: Command) -> str:
    """The username that a command is about, also for a command about the client's own role."""
    return username_of_role(command.about) or command.about
