"""A body of ten megabytes is refused before it is sent, at every path that takes a body."""

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

from tests.stack import PATIENCE_S, Stack

LENGTH = 10 * 1024 * 1024
# Larger than an uploaded file may be.
FILE_LENGTH = 1024 * 1024 * 1024
# Larger than a device's body may be, and much less than what is announced.
SENT = b"x" * 65_537
# As chunks, larger than any body may be.
CHUNKS = (b"%x\r\n%b\r\n" % (len(SENT), SENT)) * 150


async def answer(stack: Stack, head: bytes, body: bytes) -> tuple[int, dict[str, Any]]:
    """The answer to a request whose body does not end."""
    parts = urlsplit(stack.gateway_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(head + body)
            status = int((await reader.readline()).split()[1])
            fields = {}
            while line := (await reader.readline()).strip():
                name, _, value = line.decode().partition(": ")
                fields[name.lower()] = value
            problem = json.loads(await reader.readexactly(int(fields["content-length"])))
            assert fields["content-type"] == "application/problem+json"
            assert fields["x-request-id"] == problem["request_id"]
            return status, problem
    finally:
        writer.close()


async def test_a_body_announced_as_too_large_is_refused_before_it_arrives(stack: Stack) -> None:
    document = (await stack.http.get("/openapi.json")).json()
    secrets = {
        "provisioningKey": stack.provisioning_key,
        "deviceApiKey": "test-api-key",
        "apiToken": stack.admin_token,
    }
    # Whether a job takes a list is checked before the length of the list.
    job = {"kind": "assign", "mqtt_broker_id": None}
    assert (await stack.admin("POST", "/jobs", json=job)).json()["id"] == 1
    walked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            [scheme] = operation["security"][0]
            is_file = "application/json" not in operation["requestBody"]["content"]
            content_type = "text/csv" if is_file else "application/json"
            announced = FILE_LENGTH if is_file else LENGTH
            head = (
                f"{method.upper()} {re.sub('{[^}]*}', '1', path)} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {secrets[scheme]}\r\nContent-Type: {content_type}\r\n"
            )
            framings = [
                (f"Content-Length: {announced}", SENT),
                (f"Content-Length: {announced}\r\nExpect: 100-continue", b""),
            ]
            if not is_file:
                # No length is announced, so the body is refused when too much has arrived.
                framings.append(("Transfer-Encoding: chunked", CHUNKS))
            for framing, body in framings:
                request = f"{head}{framing}\r\n\r\n".encode()
                status, problem = await answer(stack, request, body)
                refused = (status, problem["reason"])
                assert refused == (413, "BODY_TOO_LARGE"), (method, path, framing, problem)
            assert "413" in operation["responses"], (method, path)
            walked += 1
    assert walked >= 9
