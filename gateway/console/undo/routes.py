"""The pages that undo changes."""

from litestar import Router

from gateway.console.undo.brokers import (
    confirm_broker,
    confirm_default,
    confirm_pin,
    undo_broker,
    undo_default,
    undo_pin,
)
from gateway.console.undo.rollouts import confirm_rollout, undo_rollout

ROUTES = Router(
    "/undo",
    route_handlers=[
        confirm_pin,
        undo_pin,
        confirm_default,
        undo_default,
        confirm_broker,
        undo_broker,
        confirm_rollout,
        undo_rollout,
    ],
)
