"""Examples for the OpenAPI document, all from one small installation.

Each type of a body or an answer has its own `EXAMPLE`; this module has the values that several
examples share. Tests send each example to a new installation of `make run` with one device, which
must accept it, and compare the answers with the examples.
"""

from typing import Any, get_args, get_origin

from msgspec import Struct

REQUEST_ID = "9f0c6f6a3d1e4c0f8a5b2d7e6c1a0b94"
MOMENT = "2026-11-23T19:00:00.123456Z"
UUID = "test-device-123"
TOKEN_ID = "3c1d9b7e-52a4-4f6b-8e0d-6a7b8c9d0e1f"  # noqa: S105 - an id is no secret
KEY_ID = "8a6f2f0e-3a53-4d0c-9d5e-0c1f7c1b2a11"
SECRET_ID = "5b0e7c92-61d4-4a8f-9c37-2f4e6d8a0b13"  # noqa: S105 - an id is no secret
ACCOUNT_ID = "d4a1b2c3-9e8f-4071-8b6a-5c4d3e2f1a09"
PROCESS_ID = "0b7d3f7e-1f52-4f0a-a7c4-3d9a6d1d5c60"

# Examples of parameters, by their names. A name means the same in all paths and queries.
PARAMETERS: dict[str, Any] = {
    "uuid": UUID,
    "broker_id": 1,
    "certificate_id": 1,
    "told": "old",
    "revision": 1,
    "pool_id": 1,
    "region_id": "north",
    "fleet_id": "demo",
    "key_id": KEY_ID,
    "token_id": TOKEN_ID,
    "secret_id": SECRET_ID,
    "account_id": ACCOUNT_ID,
    "job_id": 1,
    "limit": 100,
    "cursor": "",
}


def example_of(kind: Any) -> Any:
    """The example of a type: its own, or a page or a list with one item; None if it has none."""
    if get_origin(kind) is list:
        [item] = get_args(kind)
        return [example_of(item)]
    if not (isinstance(kind, type) and issubclass(kind, Struct)):
        return None
    if "EXAMPLE" in vars(kind):
        return vars(kind)["EXAMPLE"]
    for base in getattr(kind, "__orig_bases__", ()):
        if "next_cursor" in kind.__struct_fields__:
            [item] = get_args(base)
            return {"items": [example_of(item)], "next_cursor": None}
    return None
