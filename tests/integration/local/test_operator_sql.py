"""The note's SQL, run unchanged in psql by the operator's role; and what each role may not do."""

import os
import shutil
import subprocess

import psycopg
import pytest

from local.cluster import wheel_bin
from tests.stack import Database, Stack

ASSIGN = """
-- Assign specific broker to device
UPDATE devices
SET mqtt_broker_id = 2
WHERE uuid = 'device-uuid';
"""
UNASSIGN = """
-- Use default broker
UPDATE devices
SET mqtt_broker_id = NULL
WHERE uuid = 'device-uuid';
"""
ROLLOUT = """
-- 1. Verify default broker exists
SELECT * FROM mqtt_broker_config WHERE is_default = true;

-- 2. Assign default broker to existing devices
UPDATE devices
SET mqtt_broker_id = (
  SELECT id FROM mqtt_broker_config WHERE is_default = true LIMIT 1
)
WHERE mqtt_broker_id IS NULL;
"""
MONITOR = """
-- 3. Monitor device connections
SELECT
  d.uuid,
  d.device_name,
  mbc.name AS broker_name,
  mbc.host AS broker_host
FROM devices d
LEFT JOIN mqtt_broker_config mbc ON d.mqtt_broker_id = mbc.id
WHERE d.is_online = true;
"""
KEYS_DEFAULT = """
UPDATE devices
SET mqtt_broker_id = (
  SELECT default_broker_id
  FROM provisioning_keys
  WHERE id = '{key_id}'
)
WHERE uuid = 'device-uuid';
"""


def psql(database: Database, script: str) -> str:
    """What psql prints as mooring_operator; psql must succeed."""
    program = shutil.which("psql") or str(wheel_bin() / "psql")
    url = database.url("mooring_operator")
    run = subprocess.run(
        [program, url, "-v", "ON_ERROR_STOP=1", "-At"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "PSQLRC": "/dev/null"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


async def source(stack: Stack) -> tuple[str, int]:
    mqtt = (await stack.connection("device-uuid")).json()
    return mqtt["source"], mqtt["brokerConfig"]["port"]


async def test_the_notes_sql_takes_effect_at_the_next_resolution(stack: Stack) -> None:
    assert await stack.create_broker("Second", port=2222) == 2
    await stack.register("device-uuid")
    assert await source(stack) == ("default", 5883)
    assert psql(stack.database, ASSIGN) == "UPDATE 1\n"
    assert await source(stack) == ("device", 2222)
    assert psql(stack.database, UNASSIGN) == "UPDATE 1\n"
    assert await source(stack) == ("default", 5883)

    printed = psql(stack.database, ROLLOUT)
    assert "Local Broker" in printed
    assert printed.endswith("UPDATE 1\n")
    assert await source(stack) == ("device", 5883)
    assert psql(stack.database, MONITOR) == ""
    stack.database.execute("UPDATE devices SET is_online = true")
    assert psql(stack.database, MONITOR) == "device-uuid|Test Device|Local Broker|localhost\n"


async def test_a_keys_default_broker_assigns_by_sql_too(stack: Stack) -> None:
    broker_id = await stack.create_broker("Key's", port=3333)
    await stack.register("device-uuid")
    key_id = stack.database.execute("SELECT id FROM provisioning_keys")[0][0]
    psql(stack.database, f"UPDATE provisioning_keys SET default_broker_id = {broker_id}")
    assert psql(stack.database, KEYS_DEFAULT.format(key_id=key_id)) == "UPDATE 1\n"
    assert await source(stack) == ("device", 3333)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("mooring_operator", "SELECT mqtt_password_hash FROM devices"),
        ("mooring_operator", "SELECT api_key_hash FROM devices"),
        ("mooring_operator", "SELECT key_hash FROM provisioning_keys"),
        ("mooring_operator", "SELECT token_hash FROM api_tokens"),
        ("mooring_operator", "SELECT secret_hash FROM broker_secrets"),
        ("mooring_operator", "SELECT password_hash FROM service_accounts"),
        ("mooring_operator", "SELECT private_key_encrypted FROM certificates"),
        ("mooring_operator", "SELECT * FROM mqtt_users"),
        ("mooring_operator", "UPDATE devices SET uuid = 'x'"),
        ("mooring_operator", "DELETE FROM devices"),
        ("mooring_operator", "DELETE FROM mqtt_broker_config"),
        ("mooring_operator", "CREATE TABLE mine (id int)"),
        ("mooring_broker", "SELECT mqtt_password_hash FROM devices"),
        ("mooring_broker", "UPDATE devices SET mqtt_broker_id = NULL"),
        ("mooring_broker", "SELECT 1 FROM provisioning_keys"),
        ("mooring_broker", "SELECT 1 FROM api_tokens"),
        ("mooring_registry", "SELECT password_encrypted FROM mqtt_broker_config"),
        ("mooring_registry", "UPDATE mqtt_broker_config SET host = 'x'"),
        ("mooring_registry", "UPDATE broker_secrets SET prefix = 'x'"),
        ("mooring_registry", "DELETE FROM api_tokens"),
        ("mooring_operator", "DELETE FROM fleets"),
        ("mooring_operator", "SELECT revoke_fleet_devices(NULL, 1)"),
        ("mooring_registry", "SELECT 1 FROM certificates"),
        ("mqtt_reader", "SELECT 1 FROM devices"),
        ("mqtt_reader", "SELECT 1 FROM mqtt_broker_config"),
    ],
)
def test_no_role_may_do_more_than_it_needs(database: Database, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.execute(statement, role=role)


INSERT = "INSERT INTO mqtt_broker_config (name, host, port, {}) VALUES ('x', 'h', 1, {})"


@pytest.mark.parametrize(
    ("columns", "values", "constraint"),
    [
        ("use_tls", "true", "use_tls_agrees_with_protocol"),
        ("protocol", "'mqtts'", "use_tls_agrees_with_protocol"),
        ("path", "'/x'", "path_is_for_websockets"),
        ("is_default, is_active", "true, false", "default_is_active"),
        ("keep_alive", "70000", "keep_alive"),
        ("management", "'hivemq'", "management"),
        ("management", "'mosquitto'", "management_has_login"),
        ("management", "'emqx'", "management_url_is_for_http"),
        ("management_url", "'https://h'", "management_url_is_for_http"),
    ],
)
def test_the_database_checks_every_broker(
    database: Database, columns: str, values: str, constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        database.execute(INSERT.format(columns, values))


def test_there_is_one_default_at_most(database: Database) -> None:
    insert = (
        "INSERT INTO mqtt_broker_config (name, host, port, is_default) VALUES (%s, 'h', 1, true)"
    )
    database.execute(insert, "a")
    with pytest.raises(psycopg.errors.UniqueViolation, match="at_most_one_default"):
        database.execute(insert, "b")


UPDATE = "UPDATE mqtt_broker_config SET {} WHERE name = '{}'"


@pytest.mark.parametrize("role", ["mooring_operator", "mooring"])
@pytest.mark.parametrize(
    ("changes", "name", "hint"),
    [
        ("is_active = false", "main", "Make another broker the default first"),
        ("is_default = true", "other", "SET is_default = false WHERE is_default; then"),
        ("protocol = 'mqtts'", "other", "Set both in one statement"),
        ("use_tls = true", "other", "Set both in one statement"),
        ("protocol = 'tcp'", "other", "mqtt, mqtts, ws or wss"),
        ("path = '/x'", "other", "protocol to ws or wss"),
        ("port = 0", "other", "from 1 to 65535"),
        ("keep_alive = 70000", "other", "from 0 to 65535"),
        ("connect_timeout = 0", "other", "milliseconds"),
        ("host = 'mqtt://h'", "other", "Leave out scheme"),
        ("host = 'h:1883'", "other", "Leave out scheme"),
        ("host = '[::1]'", "other", "Leave out scheme"),
        ("labels = '[]'", "other", '{"site": "berlin"}'),
        ('labels = \'{"a": ["x"]}\'', "other", '{"site": "berlin"}'),
        ("management = 'hivemq'", "other", "mosquitto, emqx or rabbitmq"),
        ("management = 'emqx'", "other", "Set both in one statement"),
        ("management_url = 'https://h'", "other", "Set both in one statement"),
        ("management = 'mosquitto'", "other", "PATCH /api/v1/brokers/{id}"),
        ("management = 'emqx', management_url = 'https://h'", "other", "passwords need the API"),
    ],
)
def test_the_databases_refusals_say_what_to_do(
    database: Database, role: str, changes: str, name: str, hint: str
) -> None:
    database.execute(INSERT.replace("'x'", "'main'").format("is_default", "true"))
    database.execute(INSERT.replace("'x'", "'other'").format("is_active", "true"))
    # Operators may not set by SQL where a broker's password is sent.
    is_denied = role == "mooring_operator" and "management_url" in changes
    kind = psycopg.errors.InsufficientPrivilege if is_denied else psycopg.errors.IntegrityError
    with pytest.raises(kind) as refused:
        database.execute(UPDATE.format(changes, name), role=role)
    assert is_denied or hint in (refused.value.diag.message_hint or "")
    assert database.execute("SELECT sum(revision) FROM mqtt_broker_config") == [(2,)]


async def test_management_is_set_by_sql_where_there_is_a_login(stack: Stack) -> None:
    await stack.create_broker("mine", username="u", password="p")
    # Only the API sets where a password is sent.
    redirected = UPDATE.format("management = 'emqx', management_url = 'https://h'", "mine")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stack.database.execute(redirected, role="mooring_operator")
    change = UPDATE.format("management = 'emqx', management_url = '{}'", "mine")
    for url in (
        *("h", "ftp://h", "https://u@h", "https://u:p@h", "https://h?a", "https://h/#a"),
        *("https://h/a b", "https://" + "a" * 2_000, "http://h", "http://10.0.0.1"),
        *("http://127.0.0.1.h", "http://localhost@h", "http://127.0.0.1:80@h"),
    ):
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            stack.database.execute(change.format(url), role="mooring_broker")
        assert "http is for localhost" in (refused.value.diag.message_hint or "")
        assert "u:p" not in str(refused.value)
    for url in ("http://localhost:1", "http://127.0.0.1/a", "http://[::1]:1", "https://[::2]:1/a"):
        stack.database.execute(change.format(url), role="mooring_broker")
        [broker] = (await stack.admin("GET", "/brokers?name=mine")).json()["items"]
        assert broker["management_url"] == url
        # The API accepts what SQL has set.
        patched = await stack.admin("PATCH", f"/brokers/{broker['id']}", json={"description": url})
        assert patched.status_code == 200, patched.text
    for taken in ("username", "password_encrypted"):
        with pytest.raises(psycopg.errors.CheckViolation, match="needs a username and a password"):
            stack.database.execute(UPDATE.format(f"{taken} = NULL", "mine"))
    for elsewhere in ("host = 'evil.example'", "port = 1", "verify_certificate = false"):
        with pytest.raises(psycopg.errors.CheckViolation, match="would be sent elsewhere"):
            stack.database.execute(UPDATE.format(elsewhere, "mine"), role="mooring_operator")


async def test_a_refused_deletion_by_the_owner_names_what_uses_the_broker(stack: Stack) -> None:
    other = await stack.create_broker("Other")
    await stack.register("one")
    stack.database.execute("UPDATE devices SET mqtt_broker_id = %s", other)
    rest = "rollouts=0 regions=0 pools=0 backups=0"
    for broker_id, hint, detail in (
        (stack.default_broker_id, "Make another broker the default first.", None),
        (
            other,
            f"/api/v1/brokers/{other}/move",
            f"devices=1 fleets=0 keys=0 allowances=0 expected_devices=0 {rest}",
        ),
    ):
        with pytest.raises(psycopg.errors.IntegrityError) as refused:
            stack.database.execute("DELETE FROM mqtt_broker_config WHERE id = %s", broker_id)
        assert hint in (refused.value.diag.message_hint or "")
        assert refused.value.diag.message_detail == detail
    with pytest.raises(psycopg.errors.CheckViolation, match="keeps its id"):
        stack.database.execute("UPDATE mqtt_broker_config SET id = 77 WHERE id = %s", other)


@pytest.mark.parametrize("role", ["mooring_operator", "mooring"])
async def test_an_unknown_broker_is_named_with_a_hint(stack: Stack, role: str) -> None:
    await stack.register("one")
    for table, column in (
        ("devices", "mqtt_broker_id"),
        ("fleets", "mqtt_broker_id"),
        ("fleets", "rollout_broker_id"),
        ("provisioning_keys", "default_broker_id"),
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="no broker 999") as refused:
            stack.database.execute(f"UPDATE {table} SET {column} = 999", role=role)
        assert "SELECT id, name FROM" in (refused.value.diag.message_hint or "")


def test_ipv6_and_labels_are_set_by_sql(database: Database) -> None:
    database.execute(INSERT.format("is_active", "true"))
    for changes in ("host = '2001:db8::1'", "host = '::ffff:1.2.3.4'", 'labels = \'{"a": "b"}\''):
        database.execute(UPDATE.format(changes, "x"), role="mooring_operator")
    history = database.execute(
        "SELECT revision, changed_by, by_sql FROM mqtt_broker_history ORDER BY revision",
        role="mooring_operator",
    )
    assert history == [
        (1, "mooring", True),
        *((n, "mooring_operator", True) for n in (2, 3, 4)),
    ]
