"""A device's API key is marked as short when the device shows it, and lists can filter by it."""

from tests.integration.registry_service.administration.test_credential_rotation import rotate
from tests.stack import Stack

LONG = "0123456789abcdef0123456789abcdef"


async def listed(stack: Stack, query: str) -> set[str]:
    answer = await stack.admin("GET", f"/devices?{query}")
    assert answer.status_code == 200, answer.text
    return {item["uuid"] for item in answer.json()["items"]}


async def test_short_keys_are_known_from_the_beginning(stack: Stack) -> None:
    await stack.register("short")
    await stack.register("long", deviceApiKey=LONG)
    await stack.register("almost", deviceApiKey=LONG[1:])
    assert await listed(stack, "short_api_key=true") == {"short", "almost"}
    assert await listed(stack, "short_api_key=false") == {"long"}
    assert await listed(stack, "limit=10") == {"short", "almost", "long"}
    device = (await stack.admin("GET", "/devices/short")).json()
    assert device["has_short_api_key"] is True
    # The device is provisioned anew with another key.
    await stack.admin("PATCH", "/devices/short", json={"reprovisioning_allowed": True})
    assert (await stack.register("short", deviceApiKey=LONG)).status_code == 200
    assert await listed(stack, "short_api_key=true") == {"almost"}


async def test_short_keys_of_earlier_releases_are_known_when_they_are_shown(stack: Stack) -> None:
    for uuid in ("a", "b", "c", "quiet"):
        await stack.register(uuid)
    await stack.register("long", deviceApiKey=LONG)
    stack.database.execute("UPDATE devices SET has_short_api_key = false")
    written = "SELECT xmin::text FROM devices WHERE uuid = 'long'"
    before = stack.database.execute(written)
    await stack.connection("a")
    await stack.register("b")
    await rotate(stack, "c")
    await stack.connection("long", LONG)
    assert await listed(stack, "short_api_key=true") == {"a", "b", "c"}
    # Showing a long key writes nothing.
    assert stack.database.execute(written) == before
