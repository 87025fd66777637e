"""Brokers that ask, configured as docs/brokers/ says: the listener understands what they send."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry_service.admission.listener.dialects.emqx import Event
from tests.brokers import Asking, asking
from tests.documented import block, blocks
from tests.stack import Stack

OWN, OTHER = "iot/device/one/x", "iot/device/two/x"


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


@pytest.fixture
async def device(brokers: Asking) -> dict[str, str]:
    """What brokers know of a client, with the names that they use."""
    mqtt = (await brokers.stack.register("one")).json()["mqtt"]
    return {"username": mqtt["username"], "password": mqtt["password"], "clientid": "mqttjs_1"}


def path_of(url: str, secret: str) -> str:
    return re.sub(r"^https?://[^/]+", "", url).replace("mbs_…", secret)


def sources(conf: str) -> dict[str, dict[str, Any]]:
    """What EMQX sends, by the last part of the URL; the placeholders are not filled in."""
    found = re.findall(
        r'url = "([^"]+)"\s*headers \{(.*?)\}\s*body \{(.*?)\}\n', conf, flags=re.DOTALL
    )
    return {
        url.rpartition("/")[2]: {
            "url": url,
            "headers": dict(re.findall(r'"?([\w-]+)"? = "(.*?)"', headers)),
            "body": dict(re.findall(r'(\w+) = "(.*?)"', body)),
        }
        for url, headers, body in found
    }


async def test_emqx(brokers: Asking, device: dict[str, str]) -> None:
    [conf] = [one for one in blocks("brokers/emqx.md", "hocon") if "backend = http" in one]
    asked = sources(conf)
    assert asked.keys() == {"authenticate", "authorize"}

    async def result(operation: str, **client: str) -> str:
        source = asked[operation]
        filled = {
            name: re.sub(r"\$\{(\w+)\}", lambda found: client[found[1]], value)
            for name, value in source["body"].items()
        }
        answer = await brokers.http.post(
            path_of(source["url"], brokers.secret),
            json=filled,
            headers={
                name: value.replace("mbs_…", brokers.secret)
                for name, value in source["headers"].items()
            },
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["result"])

    device = {**device, "peerhost": "192.0.2.1"}
    assert await result("authenticate", **device) == "allow"
    assert await result("authenticate", **device | {"password": "wrong"}) == "deny"
    for action in ("publish", "subscribe"):
        for topic, expected in ((OWN, "allow"), (OTHER, "deny")):
            assert await result("authorize", **device, action=action, topic=topic) == expected
    events = block("brokers/emqx.md", "hocon", "connectors.http")
    # The rule selects exactly the fields that an event is read for.
    [selected] = re.findall(r"SELECT\s(.*?)\sFROM", events, flags=re.DOTALL)
    assert {name.strip() for name in selected.split(",")} == set(Event.__struct_fields__)
    [path] = re.findall(r'path = "(.*?)"', events)
    noted = await brokers.http.post(
        path,
        json={"event": "client.connected", **device},
        headers={"Authorization": f"Bearer {brokers.secret}"},
    )
    assert (noted.status_code, noted.json()) == (200, {})


async def test_go_auth(brokers: Asking, device: dict[str, str]) -> None:
    conf = block("brokers/mosquitto.md", "conf", "# asking")
    options = dict(re.findall(r"^plugin_opt_http_(\w+) (.*)$", conf, flags=re.MULTILINE))
    user, acl = (
        options[name].replace("mbs_…", brokers.secret) for name in ("getuser_uri", "aclcheck_uri")
    )
    assert (await brokers.http.post(user, json=device)).status_code == 200
    wrong = {**device, "password": "wrong"}
    assert (await brokers.http.post(user, json=wrong)).status_code == 403
    for access in (1, 2, 4):
        for topic, expected in ((OWN, 200), (OTHER, 403)):
            asked = {**device, "topic": topic, "acc": access}
            del asked["password"]
            assert (await brokers.http.post(acl, json=asked)).status_code == expected


async def test_vernemq(brokers: Asking, device: dict[str, str]) -> None:
    conf = block("brokers/vernemq.md", "ini", "# vernemq.conf")
    settings = dict(re.findall(r"^vmq_webhooks\.(\w+\.\w+) = (.*)$", conf, flags=re.MULTILINE))
    names = {key.partition(".")[0] for key in settings if key.endswith(".hook")}
    hooks = {settings[f"{name}.hook"]: settings[f"{name}.endpoint"] for name in names}
    ways = {"register", "publish", "subscribe"}
    assert {hook for hook in hooks if hook.startswith("auth_on_")} == {
        f"auth_on_{way}{version}" for way in ways for version in ("", "_m5")
    }
    client = {
        "client_id": device["clientid"],
        "username": device["username"],
        "mountpoint": "",
        "peer_addr": "127.0.0.1",
        "peer_port": 8888,
    }
    for hook, url in hooks.items():
        # All that the hooks need of what VerneMQ sends.
        body = {
            **client,
            "password": device["password"],
            "topic": OWN,
            "qos": 1,
            "topics": [{"topic": OWN, "qos": 1}],
        }
        headers = {"vernemq-hook": hook}
        path = path_of(url, brokers.secret)
        answer = await brokers.http.post(path, json=body, headers=headers)
        is_question = hook.startswith("auth_on_")
        assert answer.status_code == 200
        assert answer.json() == ({"result": "ok"} if is_question else {}), hook
        # VerneMQ may cache only answers about publications, and only for a short time.
        is_publication = hook.startswith("auth_on_publish")
        assert answer.headers.get("cache-control") == ("max-age=3" if is_publication else None)
        if is_question:
            other = {
                **body,
                "password": "wrong",
                "topic": OTHER,
                "topics": [{"topic": OTHER, "qos": 1}],
            }
            refused = await brokers.http.post(path, json=other, headers=headers)
            assert refused.json() == {"result": {"error": "not_allowed"}}
