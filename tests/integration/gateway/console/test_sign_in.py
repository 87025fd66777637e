"""Signing in at the console, how a session ends, and what a page of another site cannot do."""

import re
from typing import Any

import httpx2
import pytest
from mooring.registry.v1 import tokens_pb2

from tests.stack import Stack


async def sign_in(browser: httpx2.AsyncClient, token: str, **fields: str) -> Any:
    return await browser.post("/console/sign-in", data={"token": token, **fields})


async def form_token(browser: httpx2.AsyncClient) -> str:
    found = re.search(
        r'name="form_token" value="([0-9a-f]{64})"', (await browser.get("/console")).text
    )
    assert found
    return found[1]


async def test_a_person_signs_in_and_out(stack: Stack, browser: httpx2.AsyncClient) -> None:
    start = await browser.get("/")
    assert (start.status_code, start.headers["location"]) == (303, "/console")
    away = await browser.get("/console/brokers?name=a%26b")
    assert away.status_code == 303
    shown = await browser.get(away.headers["location"])
    assert shown.status_code == 200
    target = re.search(r'name="next" value="([^"]*)"', shown.text)
    assert target
    assert target[1] == "/console/brokers?name=a%26b"

    entered = await sign_in(browser, stack.admin_token, next=target[1])
    assert (entered.status_code, entered.headers["location"]) == (303, target[1])
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    page = await browser.get("/console")
    assert page.status_code == 200
    assert "Overview" in page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    secret = browser.cookies["mooring-session"]
    assert secret not in page.text
    assert stack.admin_token not in page.text

    left = await browser.post("/console/sign-out", data={"form_token": await form_token(browser)})
    assert left.status_code == 303
    # The session has ended for every gateway, not only in this browser.
    again = await stack.http.get(
        f"{stack.gateway_url}/console", headers={"Cookie": f"mooring-session={secret}"}
    )
    assert again.status_code == 303
    assert again.headers["location"].startswith("/console/sign-in")


async def test_a_revoked_token_ends_its_sessions_at_once(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    request = tokens_pb2.CreateTokenRequest(name="a viewer", role=tokens_pb2.ROLE_VIEWER)
    made = await stack.registry.tokens("CreateToken", request)
    assert (await sign_in(browser, made.secret)).status_code == 303
    assert (await browser.get("/console")).status_code == 200
    await stack.registry.tokens("RevokeToken", tokens_pb2.RevokeTokenRequest(id=made.token.id))
    assert (await browser.get("/console")).status_code == 303
    # A script is told so, in place of being led away.
    refused = await browser.get("/console", headers={"HX-Request": "true"})
    assert refused.status_code == 401


@pytest.mark.parametrize(
    "age",
    [
        "created_at = created_at - interval '13 hours'",
        "last_used_at = last_used_at - interval '61 minutes'",
    ],
)
async def test_a_session_ends_by_its_age(
    stack: Stack, browser: httpx2.AsyncClient, age: str
) -> None:
    await sign_in(browser, stack.admin_token)
    stack.database.execute(f"UPDATE console_sessions SET {age}")
    assert (await browser.get("/console")).status_code == 303
    # The next one that begins removes it.
    await sign_in(browser, stack.admin_token)
    assert stack.database.execute("SELECT count(*) FROM console_sessions") == [(1,)]


async def test_a_page_that_refreshes_itself_keeps_no_session_alive(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    await sign_in(browser, stack.admin_token)
    aged = "UPDATE console_sessions SET last_used_at = now() - interval '30 minutes'"
    is_recent = "SELECT last_used_at > now() - interval '5 minutes' FROM console_sessions"
    stack.database.execute(aged)
    await browser.get("/console", headers={"Mooring-Background": "true"})
    assert stack.database.execute(is_recent) == [(False,)]
    await browser.get("/console")
    assert stack.database.execute(is_recent) == [(True,)]


async def test_a_link_signs_in_once(stack: Stack, browser: httpx2.AsyncClient) -> None:
    made = await stack.http.post(
        f"{stack.gateway_url}/api/v1/sign-in-codes",
        headers={"Authorization": f"Bearer {stack.admin_token}"},
    )
    path = made.json()["path"]
    # Programs that look at links before a person does consume nothing.
    for _ in range(2):
        shown = await browser.get(path)
        assert shown.status_code == 200
        assert shown.headers["referrer-policy"] == "no-referrer"
    assert (await browser.post(path)).status_code == 303
    assert (await browser.get("/console")).status_code == 200
    second = await browser.post(path)
    assert second.status_code == 200
    assert "SIGN_IN_CODE_UNKNOWN" in second.text
    code = path.rpartition("/")[2]
    stored = stack.database.execute("SELECT * FROM sign_in_codes")
    assert code not in str(stored)


async def test_an_expired_link_does_not_sign_in(stack: Stack, browser: httpx2.AsyncClient) -> None:
    made = await stack.http.post(
        f"{stack.gateway_url}/api/v1/sign-in-codes",
        headers={"Authorization": f"Bearer {stack.admin_token}"},
    )
    stack.database.execute("UPDATE sign_in_codes SET expires_at = now() - interval '1 second'")
    assert "SIGN_IN_CODE_UNKNOWN" in (await browser.post(made.json()["path"])).text
    assert (await browser.get("/console")).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {},
    ],
)
async def test_a_page_of_another_origin_changes_nothing(
    stack: Stack, browser: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    await sign_in(browser, stack.admin_token)
    fields = {"form_token": await form_token(browser)}
    del browser.headers["Sec-Fetch-Site"]
    for path in ("/console/sign-out", "/console/sign-in", "/console/sign-in/msc_x"):
        refused = await browser.post(path, data=fields, headers=headers)
        assert refused.status_code == 403
        assert "FOREIGN_ORIGIN" in refused.text
    assert stack.database.execute("SELECT count(*) FROM console_sessions") == [(1,)]
    # A browser without Sec-Fetch-Site says the origin.
    own = {"Origin": stack.gateway_url}
    assert (await browser.post("/console/sign-out", data=fields, headers=own)).status_code == 303


async def test_a_form_of_another_session_changes_nothing(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    await sign_in(browser, stack.admin_token)
    stale = await form_token(browser)
    await sign_in(browser, stack.admin_token)
    for fields in ({"form_token": stale}, {"form_token": ""}, {}):
        refused = await browser.post("/console/sign-out", data=fields)
        assert refused.status_code == 403
        assert "FORM_EXPIRED" in refused.text
        assert "mooring-form-token" not in refused.headers
        # The console's own script learns the token, with which it sends the form again.
        told = await browser.post("/console/sign-out", data=fields, headers={"HX-Request": "true"})
        assert told.status_code == 403
        assert told.headers["mooring-form-token"] == await form_token(browser)


async def test_where_there_is_no_page_an_error_page_says_so(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    paths = ("/console/nothing", "/console/brokers-", "/console/a/b/c", "/console/menu/x")
    for path in paths:
        assert (await browser.get(path)).status_code == 303
    await sign_in(browser, stack.admin_token)
    for path in paths:
        missing = await browser.get(path)
        assert missing.status_code == 404
        assert missing.headers["content-type"].startswith("text/html")
        assert "Sign out" in missing.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4002", "127.0.0.1.evil.example", ""]
)
async def test_another_host_is_not_the_console(
    stack: Stack, browser: httpx2.AsyncClient, host: str
) -> None:
    refused = await browser.get("/console/sign-in", headers={"Host": host})
    assert refused.status_code in (400, 403)
    if host:
        assert "FOREIGN_ORIGIN" in refused.text


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/console\\..\\..\\evil",
        "javascript:alert(1)",
        "/console/\r\nSet-Cookie: a=b",
        "/consoles",
    ],
)
async def test_signing_in_leads_to_no_other_site(
    stack: Stack, browser: httpx2.AsyncClient, target: str
) -> None:
    entered = await sign_in(browser, stack.admin_token, next=target)
    assert entered.headers["location"] == "/console"


async def test_guessed_tokens_are_limited(stack: Stack, browser: httpx2.AsyncClient) -> None:
    answers = [await sign_in(browser, f"mat_{number:043}") for number in range(12)]
    assert "TOKEN_UNKNOWN" in answers[0].text
    assert "RATE_LIMITED" in answers[-1].text
    assert "mooring-session" not in browser.cookies
