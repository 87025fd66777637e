"""The database and the services have the same rule for identifiers, and such devices work."""

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.validation import IDENTIFIER
from tests.stack import Database, Stack

LIKE_IDENTIFIERS = st.one_of(
    st.from_regex(IDENTIFIER, fullmatch=True),
    st.text(st.sampled_from("aZ0_-:./ \n"), max_size=8),
    st.integers(60, 68).map("-".__mul__),
    st.text(max_size=8).filter(lambda text: "\0" not in text),
)
DEVICE = (
    "INSERT INTO devices (uuid, fleet_id, device_name, device_type, mqtt_username,"
    " mqtt_password_hash, credential_salt, credential_key_id, provisioned_at)"
    " VALUES (%s, 'demo', 'n', 't', 'u', 'h', 's', NULL, NULL)"
)
STATEMENTS = (
    "INSERT INTO fleets (id, name) VALUES (%s, 'n')",
    "INSERT INTO fleets (id, name, uuid_prefix) VALUES ('another', 'n', %s)",
    "INSERT INTO expected_devices (uuid, fleet_id) VALUES (%s, 'demo')",
    DEVICE,
)


def test_every_table_accepts_the_same_names(database: Database) -> None:
    with psycopg.connect(database.url("mooring")) as connection:
        connection.execute("INSERT INTO fleets (id, name) VALUES ('demo', 'n')")

        def takes(statement: str, name: str) -> bool:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(statement.encode(), (name,))
            except psycopg.errors.CheckViolation:
                return False
            except psycopg.errors.UniqueViolation:
                return True
            return True

        @settings(max_examples=200, deadline=None)
        @given(LIKE_IDENTIFIERS)
        def alike(name: str) -> None:
            for statement in STATEMENTS:
                assert takes(statement, name) == bool(IDENTIFIER.fullmatch(name)), statement

        alike()


@pytest.mark.parametrize("uuid", ["-x", "_x", "-", "--help", "_" * 64])
async def test_a_device_of_any_name_registers_connects_and_is_administered(
    stack: Stack, uuid: str
) -> None:
    registered = await stack.register(uuid)
    assert registered.status_code == 201, registered.text
    mqtt = (await stack.connection(uuid)).json()
    assert mqtt["username"] == f"device_{uuid}"
    assert (await stack.admin("PUT", f"/devices/{uuid}", json={"region": "x"})).status_code == 200
    listed = (await stack.admin("GET", "/devices")).json()["items"]
    assert [device["uuid"] for device in listed] == [uuid]
    assert (await stack.admin("DELETE", f"/devices/{uuid}")).status_code == 204


async def test_a_mac_address_is_refused_with_the_right_form(stack: Stack) -> None:
    refused = (await stack.register("AA:BB:CC:DD:EE:FF")).json()
    assert (refused["status"], refused["field"]) == (422, "uuid")
    assert "AA-BB-CC-DD-EE-FF" in refused["detail"]
