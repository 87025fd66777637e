"""The routes of the brokers' pages."""

from litestar import Router

from gateway.console.brokers import (
    access,
    acts,
    devices,
    history,
    listing,
    move,
    new,
    settings,
    step,
    testing,
)
from gateway.console.visitor import permitted

ROUTES = Router(
    "/brokers",
    route_handlers=[
        listing.broker_list,
        new.new_broker,
        new.create_broker,
        settings.broker_settings,
        settings.save_broker,
        acts.confirm,
        acts.make_default,
        acts.set_active,
        acts.delete_broker,
        move.move_page,
        move.move,
        devices.broker_devices,
        access.broker_access,
        access.make_secret,
        access.confirm_deletion,
        access.delete_secret,
        step.in_step,
        testing.test_new_broker,
        testing.test_broker,
        history.history,
        history.revision_page,
        history.roll_back,
    ],
    # Pages that only ask before an act call no route that would refuse.
    guards=[permitted],
)
