"""Service accounts and server keys at the console."""

import re
from typing import Any

from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    Person,
    assert_escaped,
    everybody,
    fields_of,
    text_of,
)
from tests.stack import Stack

HOME = "/console/service-accounts"
FIELDS = ("username", "description", "publish", "subscribe", "broker_ids", "expires_at")


async def made(person: Person, **fields: Any) -> str:
    """The path of the account."""
    page = await person.send(HOME, **{"username": "bridge", "is_active": "true", **fields})
    assert page.status_code == 200, page.text
    found = re.search(rf'href="({HOME}/[0-9a-f-]{{36}})"', page.text)
    assert found
    return found[1]


async def stored(stack: Stack, path: str) -> Any:
    return (await stack.admin("GET", path.removeprefix("/console"))).json()


async def test_a_password_is_shown_once_when_made_and_when_renewed(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        path = await made(
            admin,
            description=HOSTILE,
            publish="a/#\r\nb/+",
            subscribe="it's/#",
            broker_ids=str(stack.default_broker_id),
            expires_at="2099-12-31T23:59",
        )
        found = await stored(stack, path)
        assert (found["publish"], found["subscribe"]) == (["a/#", "b/+"], ["it's/#"])
        assert found["broker_ids"] == [stack.default_broker_id]
        asked = await admin.see(f"{path}/rotate")
        renewed = await admin.send(f"{path}/rotate", revision=str(found["revision"]))
        assert asked.status_code == renewed.status_code == 200
        assert renewed.headers["cache-control"] == "no-store"
        secret = re.search(r'<output id="secret"[^>]*>([\w-]{43})<', renewed.text)
        assert secret
        # As a shell reads it.
        assert "&#39;it&#39;&#34;&#39;&#34;&#39;s/#&#39;" in renewed.text
        # The same form sent again renews nothing.
        again = await admin.send(f"{path}/rotate", revision=str(found["revision"]))
        assert again.status_code == 412
        for person in (admin, people["viewer"]):
            for shown in (HOME, path):
                page = await person.see(shown)
                assert_escaped(page.text)
                assert secret[1] not in page.text
        assert (await admin.see(f"{path}/delete")).status_code == 200
        found = await stored(stack, path)
        gone = await admin.send(f"{path}/delete", revision=str(found["revision"]))
        assert gone.status_code == 303
        assert (await admin.see(path)).status_code == 404


async def test_a_lost_race_shows_both_versions(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        path = await made(admin, publish="a", description="first")
        was = fields_of((await admin.see(path)).text, path)
        other = {"publish": ["theirs"], "subscribe": ["added"]}
        await stack.admin("PATCH", path.removeprefix("/console"), json=other)
        typed = {"description": "first", "publish": "mine", "is_active": "true"}
        lost = await admin.send(path, **was, **typed)
        assert lost.status_code == 412
        for told in ("Publishes to a → to theirs yours: mine", "Subscribes to empty → to added"):
            assert told in text_of(lost.text)
        # An act after such a change is refused too, and says the same.
        for act in ("rotate", "delete"):
            late = await admin.send(f"{path}/{act}", **was)
            assert late.status_code == 412
            assert "Publishes to a → to theirs" in text_of(late.text)
        # Saving again changes what the person changed, and keeps what the other person changed.
        was = fields_of(lost.text, path)
        typed["subscribe"] = "added"
        saved = await admin.send(path, **was, **typed)
        assert saved.status_code == 303, saved.text
        account = await stored(stack, path)
        assert (account["publish"], account["subscribe"]) == (["mine"], ["added"])


async def test_only_admins_change_accounts_and_no_restricted_token_sees_them(stack: Stack) -> None:
    async with everybody(stack) as people:
        path = await made(people["admin"])
        before = await stored(stack, path)
        for name in ("viewer", "operator", "demo", "elsewhere"):
            person = people[name]
            is_seen = name in ("viewer", "operator")
            for shown in (HOME, path):
                page = await person.see(shown)
                assert page.status_code == (200 if is_seen else 403)
                assert "New account" not in page.text
                assert "Delete" not in page.text
            for act in ("", "/rotate", "/delete"):
                refused = await person.send(path + act, revision="1", description="mine")
                assert refused.status_code == 403
            assert (await person.send(HOME, username="mine")).status_code == 403
            assert (await person.see(f"{HOME}/new")).status_code == 403
            assert (await person.see("/console/server-keys")).status_code == 403
        assert await stored(stack, path) == before


async def test_odd_input_is_refused_by_a_page(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        path = await made(admin)
        for text in ODD:
            for name in FIELDS:
                sent = {"username": "a", name: text}
                answer = await admin.send(HOME, **sent)
                assert answer.status_code in (200, 409, 422), (name, text[:40], answer.text)
            revision = str((await stored(stack, path))["revision"])
            await admin.send(path, revision=revision, **dict.fromkeys(FIELDS, text))
            for act in ("", "/rotate", "/delete"):
                answer = await admin.send(path + act, revision=text, description="x")
                assert answer.status_code == 412, (act, text[:40], answer.text)
            assert (await admin.see(HOME, cursor=text[:500])).status_code in (200, 422)
        for wrong in (f"{HOME}/nothing", f"{HOME}/nothing/rotate", f"{HOME}/{'0' * 36}"):
            assert (await admin.see(wrong)).status_code in (404, 422)


async def test_server_keys_are_shown_with_the_devices_that_use_them(stack: Stack) -> None:
    await stack.register()
    async with everybody(stack) as people:
        page = await people["admin"].see("/console/server-keys")
        assert page.status_code == 200
        assert "Makes new credentials" in page.text
        stack.database.execute("UPDATE devices SET credential_key_id = 7")
        missing = await people["admin"].see("/console/server-keys")
        assert "1 device cannot connect" in missing.text
