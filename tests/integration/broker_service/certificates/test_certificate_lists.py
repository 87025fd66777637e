"""Checking a certificate before it is stored, and lists by expiry, use and name."""

import base64
import json
from datetime import timedelta

from tests.integration.broker_service.certificates.test_certificates import (
    CLIENT,
    TLS,
    refusal,
    uploaded,
)
from tests.stack import Stack
from tests.unit.broker_service.certificates.test_certificates import CA, KEY, LEAF, root


async def test_a_check_answers_what_an_upload_would_store(stack: Stack) -> None:
    checked = (await stack.admin("POST", "/certificates/check", json=CLIENT)).json()
    assert stack.database.execute("SELECT count(*) FROM certificates") == [(0,)]
    assert checked["existing_id"] is None
    assert KEY not in json.dumps(checked)
    stored = await uploaded(stack, **CLIENT)
    assert {name: checked[name] for name in checked if name != "existing_id"} == {
        name: stored[name] for name in checked if name != "existing_id"
    }
    [leaf, issuer] = stored["chain"]
    assert leaf["issuer"] == issuer["subject"]
    assert (leaf["subject"], leaf["issuer"]) == (stored["subject"], stored["issuer"])
    again = (await stack.admin("POST", "/certificates/check", json=CLIENT)).json()
    assert again["existing_id"] == stored["id"]
    # What an upload refuses, a check refuses in the same way.
    for body in (
        {"kind": "ca", "pem": "x"},
        {"kind": "ca", "pem": LEAF},
        {"kind": "ca", "pem": CA, "private_key": KEY},
        {"kind": "client", "pem": LEAF, "name": ""},
        {"pem": CA},
    ):
        found = await refusal(stack, "POST", "/certificates/check", json=body)
        assert found == await refusal(stack, "POST", "/certificates", json=body)
        assert found[0] == 422


async def test_lists_by_expiry_use_and_name(stack: Stack) -> None:
    ids = {}
    for name, days in (("b", 9), ("c", 9), ("a", 2), ("d", 400), ("gone", -1)):
        ids[name] = (await uploaded(stack, pem=root(), name=name))["id"]
        stack.database.execute(
            "UPDATE certificates SET not_after = date_trunc('day', now()) + %s WHERE id = %s",
            timedelta(days=days),
            ids[name],
        )
    broker = {**TLS, "ca_certificate_id": ids["c"]}
    broker_id = (await stack.admin("POST", "/brokers", json=broker)).json()["id"]
    await stack.admin("POST", f"/brokers/{broker_id}/default")
    for uuid in ("one", "two"):
        await stack.register(uuid)
    await stack.admin("PATCH", "/devices/two", json={"is_active": False})

    found = []
    cursor = ""
    while cursor is not None:
        query = {"order": "not_after", "limit": 2, "cursor": cursor}
        page = (await stack.admin("GET", "/certificates", params=query)).json()
        found += page["items"]
        cursor = page["next_cursor"]
    assert [one["name"] for one in found] == ["gone", "a", "b", "c", "d"]
    assert [one["devices"] for one in found] == [0, 0, 0, 1, 0]
    assert (await stack.admin("GET", f"/certificates/{ids['c']}")).json()["devices"] == 1
    for query, names in (
        ({"is_used": "true"}, ["c"]),
        ({"is_used": "false", "order": "not_after"}, ["gone", "a", "b", "d"]),
        ({"text": "GON"}, ["gone"]),
        ({"text": "%"}, []),
        ({"text": "gone", "is_used": "true"}, []),
    ):
        listed = (await stack.admin("GET", "/certificates", params=query)).json()["items"]
        assert [one["name"] for one in listed] == names, query
    for certificate, users in ((ids["c"], [broker_id]), (ids["a"], [])):
        listed = await stack.admin("GET", f"/brokers?certificate_id={certificate}")
        assert [one["id"] for one in listed.json()["items"]] == users

    for text in (
        "x",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01 1",
        "0001-01-01T00:00:00+23:59 1",
        "9999-12-31T23:59:59-23:59 1",
        "2026-01-01T00:00:00+00:00 99999999999",
        "2026-01-01T00:00:00+00:00 -1",
        "\0 1",
    ):
        cursor = base64.urlsafe_b64encode(json.dumps(text).encode()).decode()
        query = {"order": "not_after", "cursor": cursor}
        refused = await stack.admin("GET", "/certificates", params=query)
        assert (refused.status_code, refused.json()["field"]) == (422, "cursor"), text
