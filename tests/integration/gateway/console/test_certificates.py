"""The pages of certificates: upload with a preview, use, rotation to a safe cutover."""

import re
from datetime import timedelta
from typing import Any

import httpx2
from markupsafe import escape

from chassis.trust import Access
from tests.integration.gateway.console.people import entered, fields_of, text_of
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import CA, ISSUER, KEY, LEAF, root

NASTY = """<script>alert("x")</script> ' & {{ 7*7 }}"""
LIST = "/console/certificates"


async def test_an_upload_is_previewed_saved_renamed_and_deleted(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    assert "No certificate yet." in await visit.get(LIST)
    form: dict[str, Any] = {
        "kind": "client",
        "name": NASTY,
        "pem": LEAF + ISSUER,
        "private_key": KEY,
    }
    preview = (await visit.post(f"{LIST}/check", 200, **form)).text
    assert "What would be saved" in preview
    assert "<script>alert" not in preview
    assert str(escape(NASTY)) in preview
    # The PEM is kept, and the private key is on no page.
    assert LEAF.splitlines()[1] in preview
    assert KEY.splitlines()[1] not in preview
    assert stack.database.execute("SELECT count(*) FROM certificates") == [(0,)]
    # A script gets the preview alone.
    part = await browser.post(
        f"{LIST}/check",
        data={**form, "form_token": await form_token(browser)},
        headers={"HX-Request": "true"},
    )
    assert part.status_code == 200
    assert "What would be saved" in part.text
    assert "<html" not in part.text

    made = await visit.post(LIST, **form)
    path = made.headers["location"]
    shown = await visit.get(path)
    assert "2 certificates" in text_of(shown)
    assert "No broker uses it" in shown
    assert KEY.splitlines()[1] not in shown
    assert "CERTIFICATE_EXISTS" in (await visit.post(LIST, 409, **form)).text
    again = (await visit.post(f"{LIST}/check", 200, **form)).text
    assert f'href="{path}"' in again

    stale: dict[str, Any] = fields_of(await visit.get(path), f"{path}/rename")
    await visit.post(f"{path}/rename", **stale, name="Hall 1")
    assert "Hall 1" in await visit.get(f"{LIST}?text=hall&kind=client&is_used=false")
    assert "No certificate matches." in await visit.get(f"{LIST}?text=hall&is_used=true")
    lost = text_of((await visit.post(f"{path}/rename", 412, **stale, name="Hall 2")).text)
    assert "Another person has saved this certificate meanwhile." in lost
    assert f"Name {NASTY} → to Hall 1 yours: Hall 2" in lost
    seen: dict[str, Any] = fields_of(await visit.get(path), f"{path}/rename")
    wrong = (await visit.post(f"{path}/rename", 422, **seen, name="x" * 300)).text
    assert 'aria-invalid="true"' in wrong
    assert "x" * 300 in wrong
    assert "No broker uses it" in await visit.get(f"{path}/delete")
    await visit.post(f"{path}/delete", 412, **stale)
    deleting: dict[str, Any] = fields_of(await visit.get(f"{path}/delete"), f"{path}/delete")
    await visit.post(f"{path}/delete", **deleting)
    await visit.get(path, 404)


async def form_token(browser: httpx2.AsyncClient) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', (await browser.get(LIST)).text)
    assert found
    return found[1]


async def test_what_cannot_be_stored_is_shown_at_its_field(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    for fields, field in (
        ({"kind": "ca", "pem": "nothing"}, "pem"),
        ({"kind": "ca", "pem": "\0" * 5 + NASTY}, "pem"),
        (
            {"kind": "ca", "pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
            "pem",
        ),
        ({"kind": "ca", "pem": CA, "private_key": KEY}, "private_key"),
        ({"kind": "client", "pem": LEAF + ISSUER, "private_key": "x"}, "private_key"),
        ({"kind": "ca", "pem": CA, "name": "\0"}, "name"),
        ({"kind": "cow", "pem": CA}, "kind"),
        ({}, "kind"),
    ):
        for path, status in ((LIST, 422), (f"{LIST}/check", 200)):
            page = (await visit.post(path, status, **fields)).text
            assert re.search(rf'name="{field}"[^>]*aria-invalid="true"', page), (fields, path)
            assert "<script>alert" not in page
    for path in ("0", "99999999999", "x", "2000000000", "-1"):
        await visit.get(f"{LIST}/{path}", 404)
    for query in ("cursor=%00", "cursor=abc", "kind=cow", "is_used=7", "text=" + "x" * 300):
        assert (await browser.get(f"{LIST}?{query}")).status_code in (400, 422)
    assert stack.database.execute("SELECT count(*) FROM certificates") == [(0,)]


async def test_certificates_that_end_first_come_first(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    for name, days in (("late", 400), ("soon", 3), ("middle", 20)):
        body = {"kind": "ca", "name": name, "pem": root()}
        made = await stack.admin("POST", "/certificates", json=body)
        stack.database.execute(
            "UPDATE certificates SET not_after = now() + %s WHERE id = %s",
            timedelta(days=days, hours=1),
            made.json()["id"],
        )
    page = await visit.get(LIST)
    assert re.findall(r'class="name"[^>]*>(\w+)<', page) == ["soon", "middle", "late"]
    assert "3 days" in text_of(page)


async def test_a_rotation_is_cut_over_when_it_is_safe(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    visit = await entered(browser, stack.admin_token)
    made = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": root()})
    old = made.json()["id"]
    broker = {
        "name": NASTY,
        "host": "h",
        "port": 8883,
        "protocol": "mqtts",
        "ca_certificate_id": old,
    }
    broker_id = (await stack.admin("POST", "/brokers", json=broker)).json()["id"]
    await stack.admin("POST", f"/brokers/{broker_id}/default")
    for uuid in ("first", "second"):
        await stack.register(uuid)
    path = f"{LIST}/{old}"
    used = await visit.get(path)
    assert str(escape(NASTY)) in used
    assert "1 broker uses it; 2 devices have one of them" in text_of(used)
    assert "1 broker uses it, so it cannot be deleted" in text_of(await visit.get(f"{path}/delete"))
    seen: dict[str, Any] = fields_of(await visit.get(f"{path}/delete"), f"{path}/delete")
    assert "CERTIFICATE_IN_USE" in (await visit.post(f"{path}/delete", 409, **seen)).text

    for fields in (
        {"pem": "nothing"},
        {"threshold_percent": "101", "replacement_id": str(old)},
        {"replacement_id": str(old)},
        {"replacement_id": "cow"},
        {"replacement_id": "99999999999999999"},
        {},
    ):
        await visit.post(f"{path}/rotation", 422, **fields)
    await visit.post(f"{path}/rotation", pem=root(), name="The new one")
    steps = text_of(await visit.get(f"{path}/rotation"))
    assert "0 of 2 devices have the new CA" in steps
    assert "2 devices lack it" in steps
    assert "Not safe yet" in steps
    assert "ROTATION_TOO_EARLY" in (await visit.post(f"{path}/rotation/cutover", 409)).text
    for uuid in ("first", "second"):
        assert (await stack.connection(uuid)).status_code == 200
        lack = await visit.get(f"{path}/rotation/devices?told=old")
        assert ("second" in lack) == (uuid == "first")
    await visit.get(f"{path}/rotation/devices?told=cow", 422)
    assert "2 of 2 devices have" in text_of(await visit.get(f"{path}/rotation"))
    assert "The new one is not deleted" in text_of(await visit.get(f"{path}/rotation/cancel"))

    operator = await entered(browser, await stack.token(Access.OPERATOR))
    over = await operator.post(f"{path}/rotation/cutover")
    assert "1 broker uses it" in text_of(await operator.get(over.headers["location"]))
    await operator.post(f"{path}/rotation", replacement_id=over.headers["location"].split("/")[-1])
    await operator.post(f"{path}/rotation/cancel")
    await operator.get(f"{path}/rotation/devices", 404)


async def test_the_pages_show_what_a_token_may_do(
    stack: Stack, browser: httpx2.AsyncClient
) -> None:
    made = await stack.admin("POST", "/certificates", json={"kind": "ca", "pem": root()})
    path = f"{LIST}/{made.json()['id']}"
    pages = [LIST, path, f"{path}/rotation"]
    changes = [f"{LIST}/new", f"{path}/delete", f"{path}/rotation/cancel"]
    posts = [LIST, *(f"{path}/{act}" for act in ("rename", "delete", "rotation"))]
    posts += [f"{path}/rotation/{act}" for act in ("cutover", "cancel")]
    for role in (Access.ADMIN, Access.OPERATOR, Access.VIEWER):
        is_changing = role >= Access.OPERATOR
        visit = await entered(browser, await stack.token(role))
        for page in pages:
            shown = await visit.get(page)
            assert ('method="post" action="/console/certificates' in shown) == (
                is_changing and page != LIST
            )
        assert ("/certificates/new" in await visit.get(LIST)) == is_changing
        for page in changes:
            await visit.get(page, 200 if is_changing else 403)
    for post in posts:
        await visit.post(post, 403)
    restricted = await entered(browser, await stack.token(Access.OPERATOR, ("demo",)))
    for page in [*pages, *changes]:
        await restricted.get(page, 403)
    for post in [*posts, f"{LIST}/check"]:
        await restricted.post(post, 403)
