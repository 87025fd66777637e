"""Every route that takes a file reads each form of it, whatever program wrote the file."""

import codecs
import csv
import io
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.stack import Stack

MARKS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
}
NDJSON, CSV, JSON = "application/x-ndjson", "text/csv", "application/json"
UUIDS = ("d1", "d2", "d3")


def ndjson(rows: list[dict[str, Any]]) -> str:
    return "\r\n\r\n".join(map(json.dumps, rows))


def table(rows: list[dict[str, Any]], separator: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().removesuffix("\r\n")


async def sent(
    stack: Stack, method: str, path: str, content: bytes, media_type: str
) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {stack.admin_token}", "Content-Type": media_type}
    return await stack.http.request(method, f"/api/v1{path}", content=content, headers=headers)


async def imported(stack: Stack, path: str, content: bytes, media_type: str) -> list[str]:
    answer = await sent(stack, "POST", path, content, media_type)
    assert answer.status_code == 200, answer.text
    *rows, end = map(json.loads, answer.text.splitlines())
    assert end["refused"] == 0, answer.text
    return [row["subject"] for row in rows]


@pytest.mark.parametrize("mark", MARKS)
async def test_no_row_of_any_upload_is_lost(stack: Stack, mark: str) -> None:
    devices = [{"uuid": uuid, "fleet_id": "demo", "device_name": "Gerät"} for uuid in UUIDS]
    brokers = [{"name": f"Ä {uuid}", "host": "h", "port": 1883} for uuid in UUIDS]
    job = (
        await stack.admin("POST", "/jobs", json={"kind": "assign", "mqtt_broker_id": None})
    ).json()
    for rows, path, subject in (
        (devices, "/devices/import", "uuid"),
        (brokers, "/brokers/import", "name"),
    ):
        expected = [row[subject] for row in rows]
        for text, media_type in (
            (ndjson(rows), NDJSON),
            (table(rows, ","), CSV),
            (table(rows, ";"), CSV),
        ):
            assert await imported(stack, path, MARKS[mark](text), media_type) == expected
    listed = [{"uuid": uuid} for uuid in UUIDS]
    for text, media_type in ((ndjson(listed), NDJSON), (table(listed, ","), CSV)):
        answer = await sent(stack, "PUT", f"/jobs/{job['id']}/rows", MARKS[mark](text), media_type)
        assert answer.status_code == 200, answer.text
        assert sum(answer.json()["outcomes"].values()) == len(UUIDS), answer.text


@pytest.mark.parametrize("mark", MARKS)
async def test_no_expected_device_is_lost(stack: Stack, mark: str) -> None:
    rows = [{"uuid": f"e{uuid}", "fleet_id": "demo"} for uuid in UUIDS]
    forms = [(ndjson(rows), NDJSON)]
    if mark != "UTF-16":  # RFC 8259, section 8.1, has JSON in UTF-8
        forms.append((json.dumps([{**row, "uuid": f"j{row['uuid']}"} for row in rows]), JSON))
    for text, media_type in forms:
        answer = await sent(stack, "POST", "/expected-devices/batch", MARKS[mark](text), media_type)
        assert (answer.status_code, answer.json().get("created")) == (200, 3), answer.text
