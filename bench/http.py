"""Single requests to the gateway, which prepare a row and are never measured."""

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from bench.errors import CannotMeasure

PATIENCE_S = 10.0


def ask(port: int, method: str, path: str, token: str, body: object = None) -> Any:
    """Returns the JSON that the gateway answers. Raises `CannotMeasure` unless it is a success."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as gateway:
        gateway.request(method, path, None if body is None else json.dumps(body), headers)
        response = gateway.getresponse()
        answer = response.read().decode()
    if response.status not in (200, 201, 204):
        raise CannotMeasure(f"{method} {path} is answered {response.status}: {answer}")
    return json.loads(answer) if answer else None
