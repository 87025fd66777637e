"""The routes of the pools' pages."""

from litestar import Router

from gateway.console.pools import acts, history, listing, move, settings
from gateway.console.visitor import permitted

ROUTES = Router(
    "/pools",
    route_handlers=[
        listing.pool_list,
        listing.new_pool,
        listing.create_pool,
        settings.one_pool,
        settings.update_pool,
        settings.rebalance_pool,
        settings.stop_rebalancing,
        acts.confirm,
        acts.make_default,
        acts.clear_default,
        acts.delete_pool,
        move.move_page,
        move.move,
        history.history,
        history.revision_page,
        history.roll_back,
    ],
    # Pages that only ask before an act call no route that would refuse.
    guards=[permitted],
)
