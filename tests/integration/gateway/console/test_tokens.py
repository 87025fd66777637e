"""API tokens at the console: a new one shown once, who I am, and how to revoke one."""

import re

from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    assert_escaped,
    everybody,
    signed_in,
)
from tests.stack import Stack

HOME = "/console/tokens"


async def test_a_token_is_shown_once_and_ends_with_its_sessions(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        page = await admin.send(
            HOME, name=HOSTILE, role="operator", fleet_ids="demo\r\nelsewhere", max_devices="3"
        )
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        assert_escaped(page.text)
        [secret] = set(re.findall(r"mat_[\w-]{20,}", page.text))
        listed = await admin.see(HOME)
        assert_escaped(listed.text)
        assert secret not in listed.text
        found = re.search(rf'href="{HOME}/([0-9a-f-]{{36}})"', page.text)
        assert found
        token_id = found[1]
        async with signed_in(stack, "new", secret) as person:
            own = await person.see(f"{HOME}/self")
            assert own.status_code == 200
            assert_escaped(own.text)
            assert "operator" in own.text
            assert "elsewhere" in own.text
            assert "0 of 3" in own.text
            assert "Revoke" not in own.text
            asked = await admin.see(f"{HOME}/{token_id}/revoke")
            assert asked.status_code == 200
            assert_escaped(asked.text)
            assert (await admin.send(f"{HOME}/{token_id}/revoke")).status_code == 303
            assert (await person.see(f"{HOME}/self")).status_code == 303
        assert "Revoked" in (await admin.see(f"{HOME}/{token_id}")).text


async def test_the_last_admin_stays(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        [own] = stack.database.execute("SELECT id FROM api_tokens WHERE role = 'admin'")
        asked = await admin.see(f"{HOME}/{own[0]}/revoke")
        assert "your own token" in asked.text
        refused = await admin.send(f"{HOME}/{own[0]}/revoke")
        assert refused.status_code == 409
        assert "LAST_ADMIN_TOKEN" in refused.text
        assert (await admin.see(HOME)).status_code == 200


async def test_only_admins_see_and_change_tokens(stack: Stack) -> None:
    async with everybody(stack) as people:
        [other] = stack.database.execute("SELECT id FROM api_tokens WHERE name = 'viewer'")
        count = "SELECT count(*) FROM api_tokens WHERE is_active"
        [before] = stack.database.execute(count)
        for name, person in people.items():
            own = await person.see(f"{HOME}/self")
            assert own.status_code == 200
            is_admin = name == "admin"
            assert (f'href="{HOME}"' in own.text) == is_admin
            if is_admin:
                continue
            for path in (HOME, f"{HOME}/new", f"{HOME}/{other[0]}", f"{HOME}/{other[0]}/revoke"):
                assert (await person.see(path)).status_code == 403, (name, path)
            assert (await person.send(HOME, name="a", role="admin")).status_code == 403
            assert (await person.send(f"{HOME}/{other[0]}/revoke")).status_code == 403
        assert stack.database.execute(count) == [before]


async def test_odd_input_is_refused_by_a_page(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        refused = await admin.send(HOME, name="kept", role="king")
        assert refused.status_code == 422
        assert 'value="kept"' in refused.text
        for text in ODD:
            for field in ("name", "role", "expires_at", "fleet_ids", "max_devices"):
                sent = {"name": "a", "role": "viewer", field: text}
                answer = await admin.send(HOME, **sent)
                assert answer.status_code in (200, 422), (field, text[:40], answer.text)
            assert (await admin.see(HOME, cursor=text[:500])).status_code in (200, 422)
        for path in (f"{HOME}/nothing", f"{HOME}/{'0' * 36}", f"{HOME}/nothing/revoke"):
            assert (await admin.see(path)).status_code in (404, 422)
