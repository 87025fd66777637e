"""The audit log at the console: filters, differences, and the export."""

import json

from tests.integration.gateway.console.people import HOSTILE, ODD, assert_escaped, everybody
from tests.stack import Stack

HOME = "/console/audit-log"


async def test_changes_are_shown_with_the_values_before_and_after(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        await stack.admin("PATCH", "/fleets/demo", json={"name": HOSTILE})
        await stack.admin("PATCH", "/fleets/demo", json={"name": "Demo"})
        shown = await admin.see(HOME, subject="demo", action="fleet.update")
        assert shown.status_code == 200
        assert_escaped(shown.text)
        assert "<ins>Demo</ins>" in shown.text
        assert shown.text.count("<code>fleet.update</code>") == 2
        assert 'href="/console/fleets/demo"' in shown.text
        for query, lines in (
            ({"action": "fleet."}, True),
            ({"actor": "tests"}, True),
            ({"actor": "nobody"}, False),
            ({"since": "2001-01-01T00:00", "until": "2099-01-01T00:00:30"}, True),
            ({"until": "2001-01-01T00:00"}, False),
            ({"refused_only": "true", "subject": "demo"}, False),
        ):
            found = await admin.see(HOME, **query)
            assert found.status_code == 200, (query, found.text)
            assert ('class="feed"' in found.text) == lines, query
        exported = await admin.see(f"{HOME}/export", subject="demo", action="fleet.update")
        assert exported.headers["content-disposition"].startswith("attachment")
        *lines_of_file, end = map(json.loads, exported.text.splitlines())
        assert [line["after"]["name"] for line in lines_of_file] == ["Demo", HOSTILE]
        assert end == {"complete": True, "lines": 2}


async def test_a_long_log_is_read_page_by_page(stack: Stack) -> None:
    stack.database.execute(
        "INSERT INTO audit_log (actor, actor_id, action, subject, request_id) "
        "SELECT 'a', 'id', 'fleet.update', 'many', '' FROM generate_series(1, 120)"
    )
    async with everybody(stack) as people:
        page = await people["admin"].see(HOME, subject="many")
        seen = page.text.count("<code>fleet.update</code>")
        pages = 1
        while 'href="/console/audit-log?' in page.text and "Next page" in page.text:
            path = page.text.split('<a class="btn small" href="')[1].split('"')[0]
            page = await people["admin"].see(path.replace("&amp;", "&"))
            seen += page.text.count("<code>fleet.update</code>")
            pages += 1
        assert (seen, pages) == (120, 3)


async def test_only_admins_read_it(stack: Stack) -> None:
    async with everybody(stack) as people:
        for name, person in people.items():
            is_admin = name == "admin"
            for path in (HOME, f"{HOME}/export"):
                assert (await person.see(path)).status_code == (200 if is_admin else 403)
            assert (f'href="{HOME}"' in (await person.see("/console")).text) == is_admin


async def test_odd_filters_are_refused_by_a_page(stack: Stack) -> None:
    async with everybody(stack) as people:
        admin = people["admin"]
        refused = await admin.see(HOME, since="yesterday", actor="kept")
        assert refused.status_code == 422
        assert 'value="kept"' in refused.text
        assert 'class="err"' in refused.text
        for text in ODD:
            for name in (
                "actor",
                "actor_id",
                "action",
                "subject",
                "since",
                "until",
                "refused_only",
                "cursor",
            ):
                answer = await admin.see(HOME, **{name: text[:3_000]})
                assert answer.status_code in (200, 400, 422), (name, text[:40])
