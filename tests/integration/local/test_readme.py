"""What the README and docs/api.md show is what happens."""

import asyncio
import json
import os
import re
import sys

from chassis.identities import Identity
from tests import REPOSITORY, documented
from tests.stack import Stack

README = (REPOSITORY / "README.md").read_text()


async def test_the_python_snippet_resolves_a_broker(stack: Stack) -> None:
    await stack.register("test-device-123")
    (snippet,) = documented.blocks("api.md", "python")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        snippet,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "BROKER_SERVICE_ADDRESS": f"127.0.0.1:{stack.broker_port}",
            "RESOLVER_SECRET_FILE": str(stack.trust.secrets[Identity.RESOLVER]),
        },
    )
    said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    assert said.decode() == "mqtt://localhost:5883 decided by SOURCE_DEFAULT\n"


async def test_the_answer_shown_is_the_answer_given(stack: Stack) -> None:
    (shown,) = (
        json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
    )
    given = (await stack.register("test-device-123")).json()
    for answer in (shown, given):
        for random in ("id", "createdAt"):
            assert answer.pop(random)
        for random in ("password", "generation"):
            assert answer["mqtt"].pop(random)
    assert shown == given
