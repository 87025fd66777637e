"""Brokers that read credentials by SQL: the queries of docs/brokers/, run on the views."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.documented import block, for_broker, numbered, queries
from tests.integration.registry_service.administration.test_import import (
    BCRYPT,
    HEX,
    MOSQUITTO,
    imported,
    row,
)
from tests.integration.registry_service.administration.test_service_accounts import changed, made
from tests.stack import Database, Stack

AUTHENTICATOR, AUTHORIZER = queries("brokers/emqx.md", "hocon")
GO_AUTH = dict(
    re.findall(
        r"^plugin_opt_pg_(\w+query) (.*)$",
        block("brokers/mosquitto.md", "conf", "# topics from the database"),
        flags=re.MULTILINE,
    )
)
# https://mosquitto.org/api/files/mosquitto_broker-h.html
READ, WRITE, SUBSCRIBE = 1, 2, 4
DEVICES = 100_000
FILL = """
INSERT INTO devices (
    uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash, credential_salt,
    credential_key_id, api_key_hash, provisioned_at, provisioned_by_key_id, told_broker_ids
)
SELECT 'd' || n, '', '', 'demo', 'device_d' || n, 'h', 's', 1, '', now(),
       (SELECT id FROM provisioning_keys), '{1}'
FROM generate_series(1, %s) AS n
"""
IMPORT = """
INSERT INTO devices (
    uuid, device_name, device_type, fleet_id, mqtt_username, mqtt_password_hash, credential_salt,
    credential_key_id, api_key_hash, provisioned_at, provisioned_by_key_id
)
SELECT 'i' || n, '', '', 'demo', 'i' || n, 'h', 's', NULL, NULL, NULL, NULL
FROM generate_series(1, %s) AS n
"""


@dataclass(frozen=True)
class Emqx:
    """The broker with this id, as far as its SQL queries decide."""

    database: Database
    broker_id: int

    def lets_in(self, username: str, password: str) -> bool:
        """As EMQX with password_hash_algorithm { name = sha256, salt_position = prefix } checks."""
        rows = self.asked(AUTHENTICATOR, {"username": username})
        assert len(rows) <= 1
        return any(
            hashlib.sha256((one["salt"] + password).encode()).hexdigest() == one["password_hash"]
            and one["is_superuser"] is False
            for one in rows
        )

    def may(self, username: str, action: str, topic: str) -> bool:
        """The first row that matches decides; with no_match = deny."""
        return any(
            one["permission"] == "allow"
            for one in self.asked(AUTHORIZER, {"username": username})
            if one["action"] in (action, "all") and emqx_matches(topic, one["topic"])
        )

    def asked(self, query: str, client: Mapping[str, str]) -> list[dict[str, Any]]:
        statement, names = numbered(for_broker(query, self.broker_id))
        return asked(self.database, statement, *(client[name] for name in names))


def asked(database: Database, statement: str, *values: Any) -> list[dict[str, Any]]:
    """Runs the statement as a driver that leaves the types of parameters to PostgreSQL."""
    with (
        psycopg.connect(database.url("mqtt_reader")) as connection,
        psycopg.RawCursor(connection) as cursor,
    ):
        cursor.execute(statement, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, found, strict=True)) for found in cursor]


def emqx_matches(topic: str, rule: str) -> bool:
    """Like emqx_topic:match/2, which ignores wildcards in the topic that is asked for."""
    if topic.startswith("$") and rule[0] in "+#":
        return False
    asked, levels = topic.split("/"), rule.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index == len(asked) or level not in ("+", asked[index]):
            return False
    return len(asked) == len(levels)


def go_auth_may(stack: Stack, username: str, access: int, topic: str) -> bool:
    """As the plugin's postgres back end decides: a right needs a row, whose filter matches."""
    query = for_broker(GO_AUTH["aclquery"], stack.default_broker_id)
    found = [one for row in asked(stack.database, query, username, access) for one in row.values()]
    return any(emqx_matches(topic, one) for one in found)


@pytest.fixture
def emqx(stack: Stack) -> Emqx:
    return Emqx(stack.database, stack.default_broker_id)


Login = tuple[str, str]


async def login(stack: Stack, uuid: str) -> Login:
    mqtt = (await stack.register(uuid)).json()["mqtt"]
    return mqtt["username"], mqtt["password"]


async def test_a_registered_device(stack: Stack, emqx: Emqx) -> None:
    one, two = await login(stack, "one"), await login(stack, "two")
    assert emqx.lets_in(*one)
    assert emqx.lets_in(*two)
    for username, password in (
        (one[0], two[1]),
        (one[0], ""),
        ("one", one[1]),
        ("device_", one[1]),
        ("", one[1]),
        ("device_device_one", one[1]),
        ("' OR true --", one[1]),
        ("device_o%", one[1]),
    ):
        assert not emqx.lets_in(username, password), username
        assert not emqx.may(username, "publish", "iot/device/one/x") or username == one[0]
    for action in ("publish", "subscribe"):
        for topic in ("iot/device/one/x", "iot/device/one", "iot/device/one/a/b/c"):
            assert emqx.may(one[0], action, topic)
        for topic in ("iot/device/two/x", "iot/device/one+/x", "iot/device/+/x", "#", "iot/#", ""):
            assert not emqx.may(one[0], action, topic)
    assert emqx.may(one[0], "subscribe", "iot/device/one/#")


@pytest.mark.parametrize("way", ["disabled", "fleet", "deleted"])
async def test_a_device_whose_access_has_ended(stack: Stack, emqx: Emqx, way: str) -> None:
    one = await login(stack, "one")
    assert emqx.lets_in(*one)
    match way:
        case "disabled":
            await stack.admin("PATCH", "/devices/one", json={"is_active": False})
        case "fleet":
            stack.database.execute("UPDATE fleets SET is_active = false", role="mooring_operator")
        case _:
            await stack.admin("DELETE", "/devices/one")
    assert not emqx.lets_in(*one)
    assert not emqx.may(one[0], "publish", "iot/device/one/x")
    assert not go_auth_may(stack, one[0], WRITE, "iot/device/one/x")


async def test_a_device_that_was_moved(stack: Stack, emqx: Emqx) -> None:
    one = await login(stack, "one")
    other = Emqx(stack.database, await stack.create_broker("Other", host="other.example.com"))
    await stack.admin("PUT", "/devices/one", json={"mqtt_broker_id": other.broker_id})
    # The old broker admits the device until it has been answered with the new one.
    assert (emqx.lets_in(*one), other.lets_in(*one)) == (True, False)
    answered = (await stack.connection("one")).json()
    assert (emqx.lets_in(*one), other.lets_in(*one)) == (False, False)
    new = answered["username"], answered["password"]
    assert (emqx.lets_in(*new), other.lets_in(*new)) == (False, True)
    assert not emqx.may(one[0], "publish", "iot/device/one/x")
    assert other.may(one[0], "publish", "iot/device/one/x")


async def test_imported_devices(stack: Stack, emqx: Emqx) -> None:
    """EMQX checks one algorithm at a time, and denies clients with another one."""
    broker_id = stack.default_broker_id
    secret = {"password_hash": HEX, "password_salt": "salt", "mqtt_broker_id": broker_id}
    await imported(
        stack,
        [
            row("a", mqtt_username="pump-a", password_algorithm="sha256", **secret),
            row("b", mqtt_username="pump-b", password_algorithm="sha256_suffix", **secret),
            row("c", mqtt_username="pump-c", password_hash=BCRYPT, mqtt_broker_id=broker_id),
            row("d", mqtt_username="pump-d", password_hash=MOSQUITTO, mqtt_broker_id=broker_id),
            # The first has no broker of its own, the second no password yet.
            row("e", mqtt_username="pump-e", **{**secret, "mqtt_broker_id": None},
                password_algorithm="sha256"),
            row("f", mqtt_broker_id=broker_id),
        ],
    )  # fmt: skip
    found = {name: emqx.lets_in(f"pump-{name}", "secret") for name in "abcde"}
    assert found == {"a": True, "b": False, "c": False, "d": False, "e": False}
    assert not emqx.lets_in("device_f", "")
    assert emqx.may("pump-d", "publish", "iot/device/d/x")
    assert not emqx.may("pump-e", "publish", "iot/device/e/x")
    # From now on it has another username.
    a = await login(stack, "a")
    assert emqx.lets_in(*a)
    assert not emqx.lets_in("pump-a", "secret")


async def test_service_accounts(stack: Stack, emqx: Emqx) -> None:
    topics = ["iot/device/+/telemetry/#", "hall/status", "plus/+", "odd/${x}", "eq odd/#"]
    everywhere = await made(stack, "dashboard", subscribe=topics, publish=["set/+", "hall/status"])
    account = "dashboard", everywhere["password"]
    other = Emqx(stack.database, await stack.create_broker("Other", host="other.example.com"))
    here = await made(stack, "bridge", broker_ids=[emqx.broker_id], publish=["bridge/#"])
    assert emqx.lets_in(*account)
    assert other.lets_in(*account)
    assert emqx.lets_in("bridge", here["password"])
    assert not other.lets_in("bridge", here["password"])
    assert not other.may("bridge", "publish", "bridge/x")
    for action, topic, is_allowed in (
        ("subscribe", "iot/device/+/telemetry/#", True),
        ("subscribe", "iot/device/one/telemetry/x", True),
        ("publish", "iot/device/one/telemetry/x", False),
        ("subscribe", "iot/#", False),
        ("publish", "set/x", True),
        ("publish", "hall/status", True),
        ("subscribe", "hall/status", True),
        ("subscribe", "set/x", False),
        # With this filter EMQX would also allow plus/#, so the view leaves it out.
        ("subscribe", "plus/x", False),
        ("subscribe", "plus/#", False),
    ):
        assert emqx.may("dashboard", action, topic) == is_allowed, (action, topic)
        asked_for = WRITE if action == "publish" else SUBSCRIBE
        is_plus = topic.startswith("plus")
        assert go_auth_may(stack, "dashboard", asked_for, topic) == (is_allowed or is_plus)
    assert [one["topic"] for one in emqx.asked(AUTHORIZER, {"username": "dashboard"})] == [
        "iot/device/+/telemetry/#",
        "hall/status",
        "set/+",
        "hall/status",
    ]
    assert go_auth_may(stack, "dashboard", READ, "iot/device/one/telemetry/x")
    assert not go_auth_may(stack, "dashboard", READ, "set/x")

    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await changed(stack, everywhere, expires_at=soon)
    assert emqx.lets_in(*account)
    stack.database.execute("UPDATE service_accounts SET expires_at = now() - interval '1 s'")
    assert not emqx.lets_in(*account)
    assert not emqx.may("dashboard", "subscribe", "hall/status")
    assert not go_auth_may(stack, "dashboard", SUBSCRIBE, "hall/status")


async def test_go_auth_reads_topics_and_admits_no_client(stack: Stack) -> None:
    """Mosquitto's plugin has no algorithm that checks the stored hashes of devices' passwords."""
    one = await login(stack, "one")
    await made(stack)
    for username in (one[0], "dashboard", ""):
        assert asked(stack.database, GO_AUTH["userquery"], username) == []
    for access in (READ, WRITE, READ | WRITE, SUBSCRIBE):
        for topic in ("iot/device/one/x", "iot/device/one/#"):
            assert go_auth_may(stack, one[0], access, topic)
        for topic in ("iot/device/two/x", "iot/#", "#", "+/device/one/#"):
            assert not go_auth_may(stack, one[0], access, topic)


def test_a_reader_of_the_views_may_do_nothing_else(database: Database) -> None:
    rights = """
    SELECT relation.relname, array_agg(privilege ORDER BY privilege)
    FROM pg_class AS relation
    JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[])
        AS privilege
    WHERE schema.nspname = 'public' AND relation.relkind IN ('r', 'v', 'm', 'p', 'f')
      AND (has_table_privilege('mqtt_reader', relation.oid, privilege) OR (
          privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
          AND has_any_column_privilege('mqtt_reader', relation.oid, privilege)
      ))
    GROUP BY relation.relname ORDER BY relation.relname
    """
    assert database.execute(rights) == [("mqtt_acls", ["SELECT"]), ("mqtt_users", ["SELECT"])]
    functions = """
    SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    AND prosecdef AND has_function_privilege('mqtt_reader', oid, 'EXECUTE')
    """
    assert database.execute(functions) == []
    for table in ("devices", "service_accounts", "broker_secrets", "mqtt_devices", "mqtt_accounts"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute(f"SELECT * FROM {table}", role="mqtt_reader")


def steps(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield plan["Node Type"], plan.get("Relation Name", "")
    for inner in plan.get("Plans", []):
        yield from steps(inner)


async def test_a_lookup_uses_the_indexes(stack: Stack) -> None:
    database = stack.database
    database.execute(FILL, DEVICES)
    database.execute(IMPORT, 1_000)
    database.execute("ANALYZE devices")
    for query, count in (
        (numbered(AUTHENTICATOR)[0], 3),
        (numbered(AUTHORIZER)[0], 3),
        (GO_AUTH["aclquery"], 2),
    ):
        with psycopg.connect(database.url("mqtt_reader"), autocommit=True) as connection:
            connection.execute(f"PREPARE asked AS {query}")
            for mode in ("force_custom_plan", "force_generic_plan"):
                connection.execute(f"SET plan_cache_mode = {mode}")
                for username in ("device_d77", "i77", "nobody"):
                    values = [f"'{username}'"] * (count - 1)
                    values.append("2" if query is GO_AUTH["aclquery"] else f"'{username}'")
                    explain = f"EXPLAIN (FORMAT JSON) EXECUTE asked({','.join(values)})"
                    [[[explained]]] = connection.execute(explain).fetchall()
                    used = set(steps(explained["Plan"]))
                    assert ("Index Scan", "devices") in used
                    assert not [step for step in used if step == ("Seq Scan", "devices")]
