"""URLs mean the same on devices' paths, which bypass the framework, and on all other paths.

Targets that are equivalent by RFC 3986, sections 2.3 and 6.2.2, get the same answer; others 404.
"""

import random
import re
from urllib.parse import quote

import pytest

from chassis.http_target import BadTarget, target_of
from tests.integration.registry_service.provisioning.test_device_handler import line_to, request
from tests.stack import Stack

TRIES = 3


def encoded(path: str, letters: random.Random, *, is_upper: bool) -> str:
    """`path` with some of its letters percent-encoded."""
    return "".join(
        f"%{ord(letter):02{'X' if is_upper else 'x'}}"
        if letter != "/" and letters.random() < 0.5
        else letter
        for letter in path
    )


async def walk(stack: Stack) -> list[tuple[str, str]]:
    """Every documented operation that changes nothing without a body, and devices' paths."""
    await stack.register("test-d_1")
    document = (await stack.http.get("/openapi.json")).json()
    found = [
        (method.upper(), re.sub("{[^}]*}", "test-d_1", path))
        for path, operations in document["paths"].items()
        for method in operations
    ]
    assert ("GET", "/api/v1/device/test-d_1/mqtt") in found
    assert len(found) > 50
    return found


async def test_equivalent_targets_get_the_same_answer(stack: Stack) -> None:
    letters = random.Random(7)  # noqa: S311
    secrets = {True: "test-api-key", False: stack.admin_token}
    is_of_device = False
    async with line_to(stack.gateway_url) as line:

        async def answered(method: str, target: str) -> tuple[int, str | None]:
            shown = secrets[is_of_device]
            fields = (f"Authorization: Bearer {shown}", "Content-Type: application/json")
            answer = await line.ask(request(method, target, *fields), to=method)
            return answer.status, answer.header("content-type")

        for method, path in await walk(stack):
            # Answers to the last two are of no known length.
            if method == "DELETE" or path.endswith(("/export", "/changes")):
                continue
            is_of_device = path.startswith("/api/v1/device/")
            plain = await answered(method, path)
            for target in (
                *(encoded(path, letters, is_upper=bool(n % 2)) for n in range(TRIES)),
                f"http://gateway.example{path}",
                f"HTTP://u@gateway.example:1{encoded(path, letters, is_upper=True)}",
            ):
                assert await answered(method, target) == plain, (method, target)
            cut = path.rindex("/")
            for other in (
                f"{path}/",
                f"/{path}",
                path.replace("/api", "//api", 1) if "/api" in path else f"{path}//",
                f"{path[:cut]}/.{path[cut:]}",
                f"{path[:cut]}/x/..{path[cut:]}",
                f"{path[:cut]}/%2e{path[cut:]}",
            ):
                assert (await answered(method, other))[0] == 404, (method, other)
            # Here these are letters of a segment, which is looked up like any other.
            for other in (f"{path[: cut + 1]}%2F{path[cut + 1 :]}", f"{path};a=b"):
                assert (await answered(method, other))[0] >= 400, (method, other)


def test_a_target_has_one_normal_form() -> None:
    for sent, path, query in (
        (b"/a", b"/a", b""),
        (b"/a?", b"/a", b""),
        (b"/a?b=%74?c", b"/a", b"b=%74?c"),
        (b"/%61%2D%2d%7e", b"/a--~", b""),
        (b"/a%2fb%2Fc", b"/a%2Fb%2Fc", b""),
        (b"http://h", b"/", b""),
        (b"http://h?a", b"/", b"a"),
        (b"HTTPS://u@h:1/a?b", b"/a", b"b"),
        (b"*", b"*", b""),
        (quote("/ä").encode(), "/ä".encode(), b""),
    ):
        assert target_of(sent) == (path, query), sent
    for sent in (b"", b"a", b"h:1", b"ftp://h/a", b"http:///a", b"/a#b", b"/a?b#c", b"/%", b"/%4g"):
        with pytest.raises(BadTarget):
            target_of(sent)
