"""The revisions of a broker, and restoring one: below `/api/v1/brokers/{id}`."""

import json
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from litestar import Response, Router, get, post
from litestar.params import JSONBody, PathParameter
from mooring.broker.v1 import history_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.trust import Access
from gateway.administration.broker_types import Broker, broker_json
from gateway.administration.caller import CallerRequest
from gateway.administration.fields import MAX_INT64, PathId, moment_of
from gateway.administration.listing import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.administration.preconditions import IF_REVISION, IfRevision, tagged
from gateway.bodies import StrictJson
from gateway.documentation import documented
from gateway.examples import MOMENT

Kind = Literal["created", "updated", "deleted", "recorded"]
KINDS: dict[int, Kind] = {
    history_pb2.REVISION_KIND_CREATED: "created",
    history_pb2.REVISION_KIND_UPDATED: "updated",
    history_pb2.REVISION_KIND_DELETED: "deleted",
    history_pb2.REVISION_KIND_RECORDED: "recorded",
}


class FieldChange(Struct, kw_only=True, frozen=True, rename={"before": "from", "after": "to"}):
    """A field before and after the change; null where the broker did not exist before, or was
    deleted.
    """

    before: Any
    after: Any


class BrokerRevision(Struct, kw_only=True, frozen=True):
    """A change of a broker."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "revision": 2,
        "kind": "updated",
        "changed_at": MOMENT,
        "changed_by": "nightly backup",
        "by_sql": False,
        "changes": {"keep_alive": {"from": 60, "to": 30}, "password": "changed"},
    }

    revision: int
    kind: Annotated[
        Kind, Meta(description="recorded: the broker existed when Mooring began to keep revisions.")
    ]
    changed_at: datetime | None
    changed_by: Annotated[
        str, Meta(description="The name of the API token, or of the database role.")
    ]
    by_sql: bool
    changes: Annotated[
        dict[str, FieldChange | Literal["changed"]],
        Meta(description="By field. For the password, the change is listed without its values."),
    ]


class BrokerHistory(Page[BrokerRevision], frozen=True):
    """A broker's revisions, newest first."""


class Rollback(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The revision to restore."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"revision": 1}

    revision: Annotated[int, Meta(ge=1, le=MAX_INT64)]
    password: (
        Annotated[
            str,
            documented(
                minLength=1,
                maxLength=4096,
                writeOnly=True,
                description="The broker's new password. Required if Mooring would send the "
                "password of the revision to another destination than the present one, or than the "
                "one it was given for.",
            ),
        ]
        | UnsetType
    ) = UNSET


def _json(revision: history_pb2.BrokerRevision) -> BrokerRevision:
    return BrokerRevision(
        revision=revision.revision,
        kind=KINDS[revision.kind],
        changed_at=moment_of(revision, "changed_at"),
        changed_by=revision.changed_by,
        by_sql=revision.by_sql,
        changes={name: _change(revision.changes[name]) for name in sorted(revision.changes)},
    )


def _change(change: history_pb2.FieldChange) -> FieldChange | Literal["changed"]:
    if change.is_secret:
        return "changed"
    return FieldChange(before=json.loads(change.from_json), after=json.loads(change.to_json))


@get(
    "/{broker_id:int}/history",
    access=Access.VIEWER,
    summary="List a broker's revisions",
    description="The newest first. Includes changes that were made with SQL, and those of "
    "deleted brokers.",
    reasons=("BROKER_NOT_FOUND",),
)
async def list_broker_revisions(
    request: CallerRequest, broker_id: PathId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = ""
) -> BrokerHistory:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.broker_history.ListBrokerRevisions,
        history_pb2.ListBrokerRevisionsRequest(broker_id=broker_id, page_size=limit, cursor=cursor),
    )
    return BrokerHistory(
        [_json(revision) for revision in answer.revisions], answer.next_cursor or None
    )


@get(
    "/{broker_id:int}/history/{revision:int}",
    access=Access.VIEWER,
    summary="Get a broker at a revision",
    reasons=("BROKER_NOT_FOUND", "REVISION_NOT_FOUND"),
)
async def get_broker_revision(
    request: CallerRequest,
    broker_id: PathId,
    revision: Annotated[int, PathParameter(ge=1, le=MAX_INT64)],
) -> Broker:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.broker_history.GetBrokerRevision,
        history_pb2.GetBrokerRevisionRequest(broker_id=broker_id, revision=revision),
    )
    return broker_json(answer.broker)


@post(
    "/{broker_id:int}/rollback",
    access=Access.OPERATOR,
    action="broker_history.roll_back_broker",
    summary="Restore a broker to an earlier revision",
    description="Makes a new revision with the values of the earlier one, the password and "
    "certificates included. `is_default` does not change. A deleted broker is created "
    "again with the same id.",
    status_code=200,
    dto=StrictJson[Rollback],
    dependencies=IF_REVISION,
    reasons=(
        "BROKER_NOT_FOUND",
        "REVISION_NOT_FOUND",
        "BROKER_NAME_TAKEN",
        "BROKER_IS_DEFAULT",
        "BROKER_UNKNOWN",
        "PASSWORD_KEY_GONE",
    ),
)
async def roll_back_broker(
    request: CallerRequest,
    broker_id: PathId,
    data: JSONBody[Rollback],
    if_revision: IfRevision,
) -> Response[Broker]:
    caller = request.auth
    answer = await caller.ask_broker_service(
        caller.services.broker_history.RollBackBroker,
        history_pb2.RollBackBrokerRequest(
            broker_id=broker_id,
            revision=data.revision,
            if_revision=if_revision,
            password=None if data.password is UNSET else data.password,
        ),
    )
    return tagged(broker_json(answer.broker), answer.broker.revision)


ROUTES = Router(
    "/brokers",
    route_handlers=[list_broker_revisions, get_broker_revision, roll_back_broker],
    tags=["brokers"],
)
