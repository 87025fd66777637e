"""No text of the database becomes a part of a page's HTML, wherever a page shows it.

Text comes from devices, brokers, certificates, administrators and their programs. Instead of each
of their doors, this writes hostile text into every column that takes it.
"""

import re
from collections import defaultdict
from datetime import UTC, datetime

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from psycopg import sql

from gateway.examples import PARAMETERS, UUID
from registry_service.admission.reconciler.store import LEASE
from tests.integration.gateway.console.people import everybody
from tests.integration.gateway.console.test_every_page import MADE_UP, pages
from tests.integration.gateway.test_document import furnish
from tests.stack import Stack

# It would begin an element and end an attribute. A number says which column it comes from.
HOSTILE = "<x-{}>\"'&"
# These numbers are no columns': the subject is read from the certificate itself, and a change of a
# broker forgets the error that the broker answered.
SUBJECT, ERROR = 9_999, 9_998
BEGINNING, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
# A subject has backslashes, too.
UNESCAPED = re.compile(r"<x-\d|x-\d+\\?(?:>|&gt;)\\?[\"']")
ESCAPED = re.compile(r"&lt;x-(\d+)\\?&gt;")
COLUMNS = """
SELECT table_name, column_name, data_type = 'jsonb' FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type IN ('text', 'jsonb')
ORDER BY table_name, column_name
"""
# Objects whose names and values anybody may choose. In the others the services look for theirs.
FREE = {"audit_log.after", "audit_log.before", "audit_log.details", "mqtt_broker_config.labels"}
# Texts that the services choose or check, and read again: whole tables, and columns.
INTERNAL = {"device_count_changes", "kind_changes"}
THEIRS = {"certificates.kind", "certificates.pem"}
# What some page shows, at least.
SHOWN = {
    *("api_tokens.name", "api_tokens.prefix", "broker_secrets.prefix"),
    *("audit_log.action", "audit_log.actor", "audit_log.after", "audit_log.before"),
    *("audit_log.refusal", "audit_log.request_id", "audit_log.subject"),
    *("certificates.name", "certificates.subject", "device_events.address", "device_events.what"),
    *("devices.agent_version", "devices.device_name", "devices.device_type"),
    *("devices.mac_address", "devices.mqtt_username", "devices.os_version", "devices.region"),
    *("expected_devices.device_name", "expected_devices.device_type", "fleets.name"),
    *("jobs.actor", "jobs.failure", "mqtt_broker_config.client_id_prefix"),
    *("mqtt_broker_config.description", "mqtt_broker_config.labels", "mqtt_broker_config.name"),
    *("mqtt_broker_config.region", "mqtt_broker_config.username", "mqtt_broker_history.changed_by"),
    *("provisioning_keys.description", "service_accounts.description"),
}
EVENT = """
INSERT INTO device_events
  (device_id, kind, what, broker_id, address, period, count, first_at, last_at)
SELECT id, 'connect_refused', '', 1, '', now(), 1, now(), now() FROM devices
"""
# Errors are shown while a worker looks for them.
LEASED = """
INSERT INTO leases (name, holder, expires_at) VALUES (%s, '', now() + interval '1 hour')
"""
REFUSED = """
INSERT INTO driven_brokers (broker_id, looked_at, problem) VALUES (1, now(), %s)
ON CONFLICT (broker_id) DO UPDATE SET problem = excluded.problem
"""


async def fill(stack: Stack) -> None:
    """Makes a row of each kind that people see."""
    await furnish(stack, pem(HOSTILE.format(SUBJECT)))
    job = {"kind": "assign", "mqtt_broker_id": 1, "filter": {"fleet_id": "demo"}}
    expected = {"uuid": "soon", "fleet_id": "demo", "device_name": "a", "device_type": "b"}
    for path, body in (
        ("/jobs", job),
        ("/expected-devices", expected),
    ):
        made = await stack.admin("POST", path, json=body)
        assert made.is_success, made.text
    managed = {"management": "mosquitto", "username": "mooring", "password": "p"}
    for path, body in (("/brokers/1", managed), (f"/devices/{UUID}", {"region": "north"})):
        changed = await stack.admin("PATCH", path, json=body)
        assert changed.is_success, changed.text
    stack.database.execute(EVENT)


def pem(subject: str) -> str:
    """A CA whose subject is this text."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    usage = x509.BasicConstraints(ca=True, path_length=None)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(END)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def poison(stack: Stack) -> dict[int, str]:
    """Writes to all columns, and returns those that took it, by their numbers."""
    poisoned = {}
    with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
        for number, (table, column, is_json) in enumerate(connection.execute(COLUMNS).fetchall()):
            name = f"{table}.{column}"
            if name in THEIRS or table in INTERNAL or (is_json and name not in FREE):
                continue
            # Rows may have to differ.
            text = sql.SQL("{} || ctid::text").format(HOSTILE.format(number))
            value = sql.SQL("jsonb_build_object({0}, {0})").format(text) if is_json else text
            statement = sql.SQL("UPDATE {} SET {} = {}").format(
                sql.Identifier(table), sql.Identifier(column), value
            )
            try:
                changed = connection.execute(statement).rowcount
            except psycopg.errors.IntegrityError:
                # Nothing writes such text there.
                continue
            if changed:
                poisoned[number] = name
    return poisoned


async def test_hostile_text_stays_text(stack: Stack) -> None:
    await fill(stack)
    async with everybody(stack) as people:
        poisoned = poison(stack)
        stack.database.execute(LEASED, LEASE)
        stack.database.execute(REFUSED, HOSTILE.format(ERROR))
        poisoned |= {SUBJECT: "subject", ERROR: "error"}
        seen = set()
        for method, path, _ in pages():
            if method != "GET":
                continue
            filled = path.format_map(defaultdict(lambda: MADE_UP, PARAMETERS))
            answer = await people["admin"].client.get(filled)
            if answer.headers["content-type"].startswith("text/html"):
                assert not UNESCAPED.search(answer.text), filled
                seen |= {poisoned[int(number)] for number in ESCAPED.findall(answer.text)}
            assert answer.status_code < 500, (filled, answer.text)
    assert {*SHOWN, "subject", "error"} <= seen
