"""Codes with which people sign in at the console once: `/api/v1/sign-in-codes`."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from litestar import Router, post
from mooring.registry.v1 import sessions_pb2
from msgspec import Meta, Struct

from chassis.trust import Access, WithinFleets
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import moment_of
from gateway.examples import MOMENT

SIGN_IN_PATH = "/console/sign-in"


class SignInCode(Struct, kw_only=True, frozen=True):
    """A new code. Only this answer contains it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "path": f"{SIGN_IN_PATH}/msc_hJ2kL4mN6oP8qR0sT2uV4wX6yZ8aB0cD2eF4gH6iJ8k",
        "expires_at": MOMENT,
    }

    path: Annotated[
        str,
        Meta(description="The page to open at this gateway. Its button signs in once."),
    ]
    expires_at: datetime | None


@post(
    "/",
    access=WithinFleets(Access.VIEWER),
    action="session.create_sign_in_code",
    summary="Make a code that signs in at the console once",
    description="A person who opens the page within five minutes may do there what this token "
    "may do.",
)
async def create_sign_in_code(request: CallerRequest) -> SignInCode:
    caller = request.auth
    answer = await caller.ask_registry(
        caller.services.sessions.CreateSignInCode, sessions_pb2.CreateSignInCodeRequest()
    )
    return SignInCode(
        path=f"{SIGN_IN_PATH}/{answer.code}", expires_at=moment_of(answer, "expires_at")
    )


ROUTES = Router("/sign-in-codes", route_handlers=[create_sign_in_code], tags=["tokens"])
