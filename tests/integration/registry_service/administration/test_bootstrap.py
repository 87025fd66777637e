"""The command that makes the first admin token in the database."""

import asyncio
import os
import subprocess
import sys

from registry_service.bootstrap import admin_token
from tests import REPOSITORY
from tests.integration.registry_service.provisioning.test_key_races import owned, waiting
from tests.stack import Stack

ROOT = REPOSITORY


async def bootstrapped(
    stack: Stack, *arguments: str, role: str = "mooring_registry"
) -> tuple[int, str, str]:
    """The exit status, and the texts on stdout and stderr."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "registry_service.bootstrap", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": stack.database.url(role)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout.strip(), ended.stderr


async def test_it_makes_the_first_token_and_no_second(stack: Stack) -> None:
    status, secret, said = await bootstrapped(stack)
    assert (status, secret) == (1, "")
    assert "there is an admin token already" in said
    # First as if the last admin token were lost, then with an empty table.
    for is_empty, arguments in ((False, ("--another", "--name", "found again")), (True, ())):
        if is_empty:
            stack.database.execute("DELETE FROM api_tokens")
        status, secret, said = await bootstrapped(stack, *arguments)
        assert status == 0, said
        headers = {"Authorization": f"Bearer {secret}"}
        own = (await stack.http.get("/api/v1/tokens/self", headers=headers)).json()
        assert own["role"] == "admin"
        assert own["name"] == ("first admin" if is_empty else "found again")
        line = stack.database.execute(
            "SELECT actor, actor_id, action, subject, session_role, ticket FROM audit_log"
            " ORDER BY id DESC LIMIT 1"
        )
        expected = ("registry_service.bootstrap", "", "token.create", own["id"])
        assert line == [(*expected, "mooring_registry", None)]


def made_once(database_url: str) -> tuple[str, str]:
    """The token, or why there is none; it runs in a thread."""
    try:
        return asyncio.run(admin_token(database_url, "ann")), ""
    except SystemExit as reason:
        return "", str(reason)


async def test_of_several_commands_at_once_one_makes_a_token(stack: Stack) -> None:
    stack.database.execute("DELETE FROM api_tokens")
    url, count = stack.database.url("mooring_registry"), 4
    with owned(stack) as connection:
        # All of them have started before any inserts its row.
        connection.execute("LOCK TABLE api_tokens IN EXCLUSIVE MODE")
        asked = [asyncio.create_task(asyncio.to_thread(made_once, url)) for _ in range(count)]
        await waiting(stack, count)
    found = await asyncio.gather(*asked)
    assert sum(bool(secret) for secret, _ in found) == 1
    refused = [said for secret, said in found if not secret]
    assert all("there is an admin token already" in said for said in refused), refused
    assert stack.database.execute("SELECT name, role FROM api_tokens") == [("ann", "admin")]


async def test_another_role_makes_none(stack: Stack) -> None:
    """tests/integration/chassis/test_database_role.py tries each role, without a process."""
    status, secret, said = await bootstrapped(stack, "--another", role="mooring_operator")
    assert status != 0
    assert secret == ""
    assert "DATABASE_URL is for the role mooring_operator" in said
