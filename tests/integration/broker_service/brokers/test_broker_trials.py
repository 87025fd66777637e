"""Tests of brokers: of a real Mosquitto, and of servers that fail in every way."""

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from broker_service.brokers.testing import trial as trials
from broker_service.brokers.testing.outcomes import Outcome, State, Step
from broker_service.brokers.testing.targets import Target
from broker_service.brokers.testing.trial import trial
from chassis.address_policy import DEFAULT, UNRESTRICTED, AddressPolicy
from local.postgres import free_port
from tests import debian, hostile
from tests.broker_versions import MOSQUITTO
from tests.mosquitto import configured

PASSWORD = "of the probe"
ACCEPTED_3_1_1 = b"\x20\x02\x00\x00"


@dataclass(frozen=True)
class Real:
    """A Mosquitto with TLS, with and without websockets."""

    target: Target
    websocket: Target
    ca: trustme.CA


def pem_of(ca: trustme.CA) -> str:
    return ca.cert_pem.bytes().decode()


def target_of(port: int, **changes: object) -> Target:
    plain = Target(7, "mqtt", "127.0.0.1", port, None, False, True, None, None)
    return replace(plain, **changes)  # type: ignore[arg-type]


@contextmanager
def running(folder: Path, ca: trustme.CA) -> Iterator[tuple[int, int]]:
    """A Mosquitto for the user `probe`; yields its ports for mqtts and wss."""
    certificate = ca.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    ports = free_port(), free_port()
    tls = f"certfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
    (folder / "acl").write_text("user probe\ntopic readwrite mooring/probe/7/#\n")
    conf = (
        f"listener {ports[0]} 127.0.0.1\n{tls}"
        f"listener {ports[1]} 127.0.0.1\nprotocol websockets\n{tls}"
        f"allow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/acl\n"
    )
    write_passwords(folder / "passwords")
    with configured(folder, ports[0], conf):
        yield ports


def write_passwords(file: Path) -> None:
    program, environment = debian.program("mosquitto", MOSQUITTO[0].suite)
    file.touch(mode=0o600)
    subprocess.run(
        [program.parent.parent / "bin" / "mosquitto_passwd", "-b", file, "probe", PASSWORD],
        check=True,
        env={**os.environ, **environment},
        capture_output=True,
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    ca = trustme.CA()
    with running(tmp_path_factory.mktemp("mosquitto"), ca) as (port, websocket_port):
        target = target_of(
            port,
            protocol="mqtts",
            host="localhost",
            use_tls=True,
            ca_pem=pem_of(ca),
            username="probe",
            password=PASSWORD,
        )
        yield Real(target, replace(target, protocol="wss", port=websocket_port, path="/mqtt"), ca)


async def outcomes(target: Target, policy: AddressPolicy = UNRESTRICTED) -> list[Outcome]:
    async with aclosing(trial(target, policy)) as steps:
        found = [outcome async for outcome in steps]
    assert [outcome.step for outcome in found] == list(Step)
    assert all(bool(outcome.reason) == (outcome.state is State.FAILED) for outcome in found)
    assert all(re.fullmatch("[A-Z][A-Z_0-9]*", outcome.reason or "X") for outcome in found)
    assert PASSWORD not in str(found)
    return found


async def failed(target: Target, policy: AddressPolicy = UNRESTRICTED) -> Outcome:
    """The step that failed; all after it are left out."""
    found = await outcomes(target, policy)
    [number] = [index for index, each in enumerate(found) if each.state is State.FAILED]
    assert all(each.state is State.SKIPPED for each in found[number + 1 :])
    return found[number]


def shown(found: list[Outcome]) -> str:
    return " ".join(outcome.state.value for outcome in found)


@pytest.mark.parametrize("is_websocket", [False, True])
async def test_a_broker_that_devices_can_use_passes(real: Real, is_websocket: bool) -> None:
    target = real.websocket if is_websocket else real.target
    found = await outcomes(target)
    assert shown(found) == "ok ok ok ok ok", found
    assert "logged in as probe" in found[3].detail
    assert "mooring/probe/7/" in found[4].detail


async def test_without_a_login_the_port_is_asked_for_mqtt(real: Real) -> None:
    found = await outcomes(replace(real.target, username=None, password=None))
    assert shown(found) == "ok ok ok ok skipped"
    assert "refuses clients without a login" in found[3].detail

    async def open_to_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(ACCEPTED_3_1_1)
        await reader.read()

    async with hostile.serving(open_to_all) as port:
        found = await outcomes(target_of(port))
    assert shown(found) == "ok ok skipped ok skipped"
    assert "accepts clients without a login" in found[3].detail


@pytest.mark.parametrize(
    ("changes", "step", "reason", "words"),
    [
        ({"password": "wrong"}, Step.LOGIN, "NOT_AUTHORIZED", "authorize"),
        ({"broker_id": 8}, Step.ROUND_TRIP, "", "mooring/probe/8/"),
        ({"ca_pem": None}, Step.TLS, "CERTIFICATE_ISSUER_UNKNOWN", "CA"),
        ({"host": "127.0.0.1"}, Step.TLS, "CERTIFICATE_NAME_MISMATCH", "but for localhost"),
        ({"ca_pem": "no PEM"}, Step.TLS, "CA_UNREADABLE", ""),
        ({"use_tls": False, "protocol": "mqtt"}, Step.LOGIN, "MQTT_CLOSED", "protocol"),
        ({"password_problem": "give it again"}, Step.LOGIN, "PASSWORD_UNUSABLE", "give it again"),
        ({"host": "no-such-host.invalid"}, Step.RESOLVE, "NAME_UNKNOWN", "no-such-host"),
        ({"path": "/elsewhere", "protocol": "wss"}, Step.LOGIN, "", ""),
    ],
)
async def test_a_wrong_setting_is_named(
    real: Real, changes: dict[str, object], step: Step, reason: str, words: str
) -> None:
    outcome = await failed(replace(real.target, **changes))  # type: ignore[arg-type]
    assert outcome.step is step, outcome
    assert outcome.reason == reason or not reason, outcome
    assert words in outcome.detail, outcome


async def test_a_certificate_is_not_checked_if_devices_do_not(real: Real) -> None:
    target = replace(real.target, ca_pem=None, verify_certificate=False)
    found = await outcomes(target)
    assert shown(found) == "ok ok ok ok ok"
    assert "devices do not check the certificate" in found[2].detail


@pytest.mark.parametrize(
    ("days", "reason"), [((-9, -1), "CERTIFICATE_EXPIRED"), ((1, 9), "CERTIFICATE_NOT_YET_VALID")]
)
async def test_the_time_of_a_certificate_is_named(days: tuple[int, int], reason: str) -> None:
    ca = trustme.CA()
    begins, ends = (datetime.now(UTC) + timedelta(days=each) for each in days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", not_before=begins, not_after=ends).configure_cert(context)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with hostile.serving(silent, context) as port:
        target = target_of(
            port, protocol="mqtts", host="localhost", use_tls=True, ca_pem=pem_of(ca)
        )
        outcome = await failed(target)
    assert (outcome.step, outcome.reason) == (Step.TLS, reason)
    assert f"{ends if reason == 'CERTIFICATE_EXPIRED' else begins:%Y-%m-%d}" in outcome.detail


@pytest.mark.parametrize(
    ("answer", "is_tls", "step", "reason"),
    [
        (b"", False, Step.LOGIN, "MQTT_CLOSED"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, Step.LOGIN, "NOT_MQTT"),
        (b"\x20\x02\x00\x04", False, Step.LOGIN, "LOGIN_REFUSED"),
        (b"\x20\x02\x00\x01", False, Step.LOGIN, "MQTT_VERSION_REFUSED"),
        (b"\x20\x02\x00\x63", False, Step.LOGIN, "MQTT_REFUSED"),
        (b"\x20\x00", False, Step.LOGIN, "NOT_MQTT"),
        (b"\x20\xff\xff\xff\xff\xff", False, Step.LOGIN, "NOT_MQTT"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, Step.TLS, "NOT_TLS"),
        (b"", True, Step.TLS, "TLS_CLOSED"),
        # Logged in, and then nothing that was asked for.
        (ACCEPTED_3_1_1 + b"\x90\x03\x00\x01\x80", False, Step.ROUND_TRIP, "SUBSCRIPTION_REFUSED"),
        (ACCEPTED_3_1_1 + b"\x30\x05\x00\x01abc", False, Step.ROUND_TRIP, ""),
        (ACCEPTED_3_1_1 + b"\x32\x05\x00\x01abc", False, Step.ROUND_TRIP, "NOT_MQTT"),
    ],
)
async def test_what_is_no_broker_is_named(
    answer: bytes, is_tls: bool, step: Step, reason: str
) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(answer)
        await writer.drain()

    async with hostile.serving(once) as port:
        protocol = "mqtts" if is_tls else "mqtt"
        target = target_of(
            port, protocol=protocol, use_tls=is_tls, username="probe", password=PASSWORD
        )
        outcome = await failed(target)
    assert outcome.step is step, outcome
    assert outcome.reason == reason or not reason, outcome


async def test_silence_ends_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "STEP_S", 0.2)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with hostile.serving(silent) as port:
        for changes, step, reason in (
            ({}, Step.LOGIN, "MQTT_SILENT"),
            ({"protocol": "ws", "path": "/mqtt"}, Step.LOGIN, "MQTT_SILENT"),
            ({"protocol": "mqtts", "use_tls": True}, Step.TLS, "TLS_SILENT"),
        ):
            outcome = await failed(target_of(port, **changes))
            assert (outcome.step, outcome.reason) == (step, reason)


async def test_a_redirect_is_not_followed() -> None:
    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/x\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n")
        await writer.drain()

    async with hostile.serving(elsewhere) as port:
        outcome = await failed(target_of(port, protocol="ws", path="/mqtt"))
    assert (outcome.step, outcome.reason) == (Step.LOGIN, "NOT_MQTT")
    assert "302" in outcome.detail


async def test_addresses_and_ports_that_cannot_be_reached_are_named() -> None:
    outcome = await failed(target_of(free_port()))
    assert (outcome.step, outcome.reason) == (Step.CONNECT, "PORT_CLOSED")
    outcome = await failed(target_of(1883), DEFAULT)
    assert (outcome.step, outcome.reason) == (Step.RESOLVE, "ADDRESS_REFUSED")
    assert "BROKER_ADDRESS_POLICY" in outcome.detail
