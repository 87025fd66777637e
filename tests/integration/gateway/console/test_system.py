"""The page of the processes, and what the first page says of those with a problem."""

import asyncio

from chassis.version import VERSION
from tests.integration.gateway.console.people import (
    HOSTILE,
    ODD,
    Person,
    assert_escaped,
    everybody,
    text_of,
)
from tests.stack import PATIENCE_S, Stack

HOME = "/console/system"


def report(stack: Stack, process: str, **values: str) -> None:
    """A process that reported a moment ago, but for `values`, which are SQL."""
    columns = {
        "id": "gen_random_uuid()",
        "host": "'there'",
        "pid": "1",
        "version": f"'{VERSION}'",
        "started_at": "now() - interval '1 hour'",
        "seen_at": "now()",
        "ended_at": "NULL",
        "is_ready": "true",
        "checks": "'{}'",
        "loops": "'{}'",
        "configuration": "'{}'",
        **values,
    }
    stack.database.execute(
        f"INSERT INTO processes (process, {', '.join(columns)})"
        f" VALUES (%s, {', '.join(columns.values())})",
        process,
    )


async def reported(person: Person) -> None:
    """Waits until the three processes of the stack have reported."""
    async with asyncio.timeout(PATIENCE_S):
        while (await person.see(HOME)).text.count('class="card process"') < 3:
            await asyncio.sleep(0.02)


async def test_processes_and_what_is_wrong_with_them(stack: Stack) -> None:
    async with everybody(stack) as people:
        await reported(people["admin"])
        page = text_of((await people["admin"].see(HOME)).text)
        for name in ("broker_service", "gateway", "registry_service"):
            assert name in page
        assert f"Version {VERSION}" in page
        assert "another version" not in page
        assert "Nothing needs you now." in (await people["viewer"].see("/console")).text

        report(
            stack,
            "worker",
            version="'0.0.9'",
            is_ready="false",
            checks="""'{"jobs": "DATABASE_DOWN", "readers": "serving"}'""",
            loops="""jsonb_build_object(
                'jobs', jsonb_build_object('problem', 'DATABASE_DOWN', 'succeeded_at', NULL,
                                           'failing_since', now() - interval '5 minutes'),
                'readers', jsonb_build_object('problem', '', 'succeeded_at', now(),
                                              'failing_since', NULL))""",
            configuration="""'{"JOB_POLL_S": "0.5", "DATABASE_URL": "(set)"}'""",
        )
        report(stack, "listener", seen_at="now() - interval '3 minutes 5 seconds'")
        report(stack, "sealer", ended_at="now() - interval '2 hours'")
        # These were replaced: only the lists of those that are gone have them.
        report(stack, "gateway", seen_at="now() - interval '20 minutes'", host="'replaced'")
        stack.database.execute(
            "UPDATE processes SET started_at = now()"
            " WHERE process = 'gateway' AND host <> 'replaced'"
        )

        for name in ("admin", "operator", "viewer"):
            page = (await people[name].see(HOME)).text
            said = text_of(page)
            assert "The loop jobs has failed for 5 minutes: DATABASE_DOWN." in said
            assert "It has not reported for 3 minutes" in said
            assert "It ended 2 hours ago, and no process of this name runs." in said
            assert "1 process of this page has another version than this gateway" in said
            assert "replaced" not in said
            # Those with a problem come first.
            names = [part.split("<")[0] for part in page.split('id="process-')[1:]]
            names = [one.partition(">")[2] for one in names]
            assert set(names[:3]) == {"listener", "sealer", "worker"}, names
            assert ("JOB_POLL_S" in said) == (name == "admin")
            assert "replaced" in (await people[name].see(HOME, state="lost")).text
            assert "sealer" in (await people[name].see(HOME, state="ended")).text
            needs = text_of((await people[name].see("/console")).text)
            assert "worker on there: not all of it works." in needs
            assert "listener on there: no report." in needs
            assert "sealer on there: it ended." in needs
        for name in ("demo", "elsewhere"):
            assert (await people[name].see(HOME)).status_code == 403
            assert "on there" not in (await people[name].see("/console")).text
            assert 'href="/console/system"' not in (await people[name].see("/console")).text

        for text in ODD:
            for query in ({"state": text[:300]}, {"cursor": text[:300]}):
                assert 400 <= (await people["admin"].see(HOME, **query)).status_code < 500


async def test_what_processes_say_of_themselves_is_only_text(stack: Stack) -> None:
    quoted = "'" + HOSTILE.replace("'", "''") + "'"
    async with everybody(stack) as people:
        report(
            stack,
            HOSTILE,
            host=quoted,
            version=quoted,
            is_ready="false",
            checks=f"jsonb_build_object({quoted}, {quoted})",
            loops=f"jsonb_build_object({quoted}, jsonb_build_object('problem', {quoted},"
            " 'failing_since', now()))",
            configuration=f"jsonb_build_object({quoted}, {quoted})",
        )
        for path in (HOME, "/console"):
            assert_escaped((await people["admin"].see(path)).text)


async def test_many_processes_are_shown_a_page_at_a_time(stack: Stack) -> None:
    async with everybody(stack) as people:
        await reported(people["admin"])
        for number in range(60):
            report(stack, f"gateway.{number:02}", ended_at="now()")
        report(stack, "x")
        page = (await people["viewer"].see(HOME, state="ended")).text
        assert page.count('class="card process"') == 50
        assert "there are more" in page
