"""`If-Match` and `If-None-Match` for resources with revisions (RFC 9110, section 13.1)."""

from typing import Annotated, Any, TypeVar

from litestar import Response
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter

from gateway.administration.caller import CallerRequest
from gateway.conditional import expected_revisions, is_current, revision_tag

Answered = TypeVar("Answered")

IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="One of these `ETag`s must be the current one, else the answer is 412 "
        "LOST_RACE; `*` matches any.",
    ),
]
IfNoneMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-None-Match",
        description="If one of these `ETag`s is the current one, the answer is 304.",
    ),
]

NOT_MODIFIED = {
    304: ResponseSpec(
        None, description="The caller has the current version.", generate_examples=False
    )
}


async def _if_revision(request: CallerRequest, if_match: IfMatch = None) -> list[int]:
    # A request may have several lines of this header, and Litestar's parameter has only the first.
    return [] if if_match is None else expected_revisions(request.headers.getall("if-match"))


# With these dependencies, a handler's parameter `if_revision: IfRevision` holds the value for the
# service's field `if_revision`.
IfRevision = NamedDependency[list[int]]
IF_REVISION = {"if_revision": Provide(_if_revision)}


def tagged(answer: Answered, revision: int) -> Response[Answered]:
    """The answer with its `ETag`."""
    return Response(answer, headers={"ETag": revision_tag(revision)})


def unless_known(
    request: CallerRequest, if_none_match: str | None, answer: Answered, revision: int
) -> Response[Any]:
    """The answer with its `ETag`, or 304 if the caller has this version."""
    tag = revision_tag(revision)
    known = [] if if_none_match is None else request.headers.getall("if-none-match")
    if is_current(known, tag):
        return Response(None, status_code=304, headers={"ETag": tag})
    return tagged(answer, revision)
