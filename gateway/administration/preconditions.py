"""`If-Match` and `If-None-Match` of what has revisions (RFC 9110, section 13.1)."""

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
        description="`ETag`s of which one must be the current one, else 412 LOST_RACE; `*`: any.",
    ),
]
IfNoneMatch = Annotated[
    str | None,
    HeaderParameter(name="If-None-Match", description="`ETag`s that need no answer: 304."),
]

NOT_MODIFIED = {
    304: ResponseSpec(None, description="Nothing has changed.", generate_examples=False)
}


async def _if_revision(request: CallerRequest, if_match: IfMatch = None) -> list[int]:
    # The parameter is the first line of the header; there may be several.
    return [] if if_match is None else expected_revisions(request.headers.getall("if-match"))


# A handler with these dependencies and `if_revision: IfRevision` gets what the service expects.
IfRevision = NamedDependency[list[int]]
IF_REVISION = {"if_revision": Provide(_if_revision)}


def tagged(answer: Answered, revision: int) -> Response[Answered]:
    """The answer with its `ETag`."""
    return Response(answer, headers={"ETag": revision_tag(revision)})


def unless_known(
    request: CallerRequest, if_none_match: str | None, answer: Answered, revision: int
) -> Response[Any]:
    """The answer with its `ETag`, or 304 where the caller has it."""
    tag = revision_tag(revision)
    known = [] if if_none_match is None else request.headers.getall("if-none-match")
    if is_current(known, tag):
        return Response(None, status_code=304, headers={"ETag": tag})
    return tagged(answer, revision)
