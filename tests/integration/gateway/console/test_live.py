"""The stream of changes for the console's pages: who gets it, and when it ends."""

import re

import httpx2
import pytest
from mooring.registry.v1 import tokens_pb2

from chassis.trust import Access
from gateway import changes
from gateway.administration import change_stream
from gateway.changes import KINDS
from tests.events import followed
from tests.integration.gateway.console.people import entered
from tests.stack import Stack

PATH = "/console/changes"


def position_of(page: str) -> str:
    found = re.search(r'data-position="([^"]*)"', page)
    assert found
    return found[1]


async def test_a_session_follows_changes_from_its_page_on(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    async with followed(browser, path=PATH) as events:
        assert events.response.headers["content-type"].startswith("text/event-stream")
        assert events.response.headers["cache-control"] == "no-store"
        first = await events.next()
        assert first is not None
        assert first.kinds == KINDS
        page = await visit.get("/console/fleets")
        assert 'data-live="brokers fleets rollouts"' in page
        await stack.create_fleet("new")
        await events.until("fleets")
        # The page is older than the fleet, and nothing else has changed since.
        position = position_of(page)
        async with followed(browser, path=PATH, last_event_id=position) as later:
            missed = await later.until("fleets")
            assert missed.kinds < KINDS


async def test_the_answer_to_a_form_is_not_refreshed(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    await stack.create_fleet("north")
    assert "data-live" in await visit.get("/console/fleets/north")
    refused = await visit.post(
        "/console/fleets/north", 422, **{"was.name": "north", "name": "", "uuid_prefix": "/"}
    )
    assert "data-live" not in refused.text


async def test_without_a_session_there_is_no_stream(browser: httpx2.AsyncClient) -> None:
    for cookie in ("", "mooring-session=mcs_x"):
        headers = {"Cookie": cookie, "Mooring-Script": "true"}
        assert (await browser.get(PATH, headers=headers)).status_code == 401


async def test_a_restricted_person_does_not_learn_when_something_changes(
    stack: Stack, browser: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "RESTRICTED_S", 0.1)
    visit = await entered(browser, await stack.token(Access.OPERATOR, ("demo",)))
    assert position_of(await visit.get("/console/devices")) == ""
    async with followed(browser, path=PATH) as events:
        for _ in range(3):
            event = await events.next()
            assert event is not None
            assert event.id == ""
            assert "audit" not in event.kinds


async def test_following_keeps_no_session_alive_and_ends_with_it(
    stack: Stack, browser: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_stream, "CHECK_S", 0.05)
    await entered(browser, stack.admin_token)
    stack.database.execute(
        "UPDATE console_sessions SET last_used_at = now() - interval '30 minutes'"
    )
    # No header of a script is needed for that.
    async with followed(browser, path=PATH) as events:
        assert await events.next()
        await stack.create_fleet("new")
        await events.until("fleets")
        used = "SELECT last_used_at > now() - interval '5 minutes' FROM console_sessions"
        assert stack.database.execute(used) == [(False,)]
        stack.database.execute(
            "UPDATE console_sessions SET last_used_at = now() - interval '61 minutes'"
        )
        await events.end()
    assert (await browser.get(PATH, headers={"Mooring-Script": "true"})).status_code == 401


async def test_a_revoked_token_ends_the_stream_at_once(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    request = tokens_pb2.CreateTokenRequest(name="a viewer", role=tokens_pb2.ROLE_VIEWER)
    made = await stack.registry.tokens("CreateToken", request)
    await entered(browser, made.secret)
    async with followed(browser, path=PATH) as events:
        assert await events.next()
        await stack.registry.tokens("RevokeToken", tokens_pb2.RevokeTokenRequest(id=made.token.id))
        await events.end()
