"""A stock Mosquitto that identifies devices by their certificates, configured as docs/ says."""

import asyncio
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from local.postgres import free_port
from tests.broker_versions import Version
from tests.documented import block, placed
from tests.mosquitto import configured, of_version

pytestmark = pytest.mark.every_version("certificates")

PATIENCE_S = 10.0
FAILED, NOT_AUTHORIZED = 0x80, 0x87
# MQTT 3.1.1, sections 3.1 and 3.2.
CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test"
ACCEPTED = b"\x20\x02\x00\x00"
CONF = block("brokers/mosquitto.md", "conf", "# certificates as identity")
[ACL] = [block("brokers/mosquitto.md", "acl", "")]


class Client(aiomqtt.Client):
    """Keeps the reason code of a publication, which aiomqtt does not return."""

    code = 0

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any
    ) -> None:
        self.code = reason_code.value
        super()._on_publish(client, userdata, mid, reason_code, properties)

    async def may_publish(self, topic: str, payload: str = "") -> bool:
        await self.publish(topic, payload, qos=1)
        assert self.code < FAILED or self.code == NOT_AUTHORIZED
        return self.code < FAILED

    async def received(self) -> tuple[str, Any]:
        """The next message. A message that may not arrive would have come before."""
        message = await asyncio.wait_for(anext(self.messages), PATIENCE_S)
        return message.topic.value, message.payload


@dataclass
class Broker:
    """A Mosquitto on 127.0.0.1 that trusts certificates of the CA `devices`."""

    folder: Path
    port: int = field(default_factory=free_port)
    devices: trustme.CA = field(default_factory=trustme.CA)
    own: trustme.CA = field(default_factory=trustme.CA)
    revoked: list[trustme.LeafCert] = field(default_factory=list)
    # Makes the broker read the revocation list again.
    reload: Callable[[], None] = field(init=False)

    def conf(self) -> str:
        server = self.own.issue_cert("localhost")
        server.private_key_pem.write_to_path(self.folder / "server.key")
        server.cert_chain_pems[0].write_to_path(self.folder / "server.pem")
        self.devices.cert_pem.write_to_path(self.folder / "devices-ca.pem")
        (self.folder / "devices.acl").write_text(ACL)
        self.write_crl()
        return placed(CONF, self.folder, self.port)

    def write_crl(self, lasts: timedelta = timedelta(days=1)) -> None:
        now = datetime.now(UTC)
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(x509.load_pem_x509_certificate(self.devices.cert_pem.bytes()).subject)
            .last_update(now - timedelta(days=2))
            .next_update(now + lasts)
        )
        for issued in self.revoked:
            leaf = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
            made = made.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(leaf.serial_number)
                .revocation_date(now)
                .build()
            )
        key = load_pem_private_key(self.devices.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        signed = made.sign(key, hashes.SHA256())
        (self.folder / "devices.crl").write_bytes(signed.public_bytes(Encoding.PEM))

    @cached_property
    def _issued(self) -> dict[str, trustme.LeafCert]:
        return {}

    def issued(self, uuid: str) -> trustme.LeafCert:
        """The certificate of a device, always the same one."""
        if uuid not in self._issued:
            self._issued[uuid] = self.devices.issue_cert(common_name=uuid)
        return self._issued[uuid]

    def client(
        self, uuid: str, certificate: trustme.LeafCert | None = None, **options: Any
    ) -> Client:
        context = self._context(certificate or self.issued(uuid))
        given: dict[str, Any] = {"protocol": aiomqtt.ProtocolVersion.V5, "timeout": PATIENCE_S}
        return Client("localhost", self.port, tls_context=context, **(given | options))

    async def lets_in(self, uuid: str, certificate: trustme.LeafCert | None = None) -> bool:
        """Connects without a client library: those wait until a timeout when no answer comes."""
        return await self._answers(self._context(certificate or self.issued(uuid)))

    async def lets_in_without_a_certificate(self) -> bool:
        return await self._answers(self._context(None))

    async def _answers(self, context: ssl.SSLContext) -> bool:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, server_hostname="localhost"
            )
        except ConnectionError:
            # The broker refuses the certificate before the handshake has ended here.
            return False
        try:
            writer.write(CONNECT)
            return await asyncio.wait_for(reader.read(4), PATIENCE_S) == ACCEPTED
        except OSError:
            return False
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _context(self, certificate: trustme.LeafCert | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.own.cert_pem.bytes().decode())
        if certificate is not None:
            certificate.configure_cert(context)
        return context


@pytest.fixture
def broker(tmp_path: Path, mosquitto_version: Version) -> Iterator[Broker]:
    made = Broker(tmp_path)
    conf = of_version(made.conf(), mosquitto_version)
    with configured(tmp_path, made.port, conf, mosquitto_version) as process:
        made.reload = lambda: process.send_signal(signal.SIGHUP)
        yield made


async def test_a_device_uses_its_own_topics_and_no_other(broker: Broker) -> None:
    async with broker.client("one") as one, broker.client("two") as two:
        for topic in ("iot/device/one/x", "iot/device/one", "iot/device/one/a/b/c"):
            assert not await two.may_publish(topic)
            assert await one.may_publish(topic)
        for topic in ("iot/device/two/x", "iot/device", "iot/device/one+/x", "x", "$SYS/x", "/"):
            with suppress(ValueError):  # the client itself refuses this topic
                assert not await one.may_publish(topic)
        assert await two.may_publish("iot/device/two/last")


@pytest.mark.parametrize(
    "topics",
    [
        "iot/device/two/#",
        "iot/device/two/x",
        "iot/device/+/x",
        "iot/#",
        "#",
        "+/+/+/#",
        "$SYS/#",
        "$share/all/#",
        "$share/all/iot/device/two/#",
    ],
)
async def test_a_device_is_sent_nothing_of_others(broker: Broker, topics: str) -> None:
    """Mosquitto accepts the subscription, and checks the pattern for each message."""
    async with broker.client("one") as one, broker.client("two") as two:
        await two.publish("iot/device/two/x", "kept", qos=1, retain=True)
        await one.subscribe([("iot/device/one/last", 1), (topics, 1)])
        assert await two.may_publish("iot/device/two/x", "now")
        assert await one.may_publish("iot/device/one/x", "own")
        assert await one.may_publish("iot/device/one/last")
        while (message := await one.received())[0] != "iot/device/one/last":
            assert message == ("iot/device/one/x", b"own")


async def test_a_clients_own_username_and_client_id_are_ignored(broker: Broker) -> None:
    """Username and client id are both the name in the certificate."""
    async with broker.client("one", username="two", password="x", identifier="two") as one:
        assert not await one.may_publish("iot/device/two/x")
        await one.subscribe("iot/device/one/#", qos=1)
        async with broker.client("two", identifier="one") as two:
            assert await two.may_publish("iot/device/two/x")
            # The other device's session has not been taken over.
            assert await one.may_publish("iot/device/one/x", "one's")
            assert await one.received() == ("iot/device/one/x", b"one's")


async def test_a_client_without_a_certificate_of_the_right_ca_is_refused(broker: Broker) -> None:
    assert await broker.lets_in("one")
    strange = trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for certificate in (
        strange.issue_cert(common_name="one"),
        broker.own.issue_cert(common_name="one"),
        broker.devices.issue_cert(common_name="one", not_after=yesterday),
        # This certificate has no common name.
        broker.devices.issue_cert("one"),
    ):
        assert not await broker.lets_in("one", certificate)
    assert not await broker.lets_in_without_a_certificate()


@pytest.mark.parametrize("name", ["+", "#", "one/+", "two/#", "%u", "%c", "one+"])
async def test_a_name_with_a_wildcard_gives_no_rights(broker: Broker, name: str) -> None:
    async with broker.client("two") as two, broker.client(name) as odd:
        assert await two.may_publish("iot/device/two/x", "two's")
        await two.subscribe("iot/device/two/#", qos=1)
        await odd.subscribe("#", qos=1)
        for topic in ("iot/device/one/x", "iot/device/two/x", "iot/device/x", "iot/device/one"):
            assert not await odd.may_publish(topic, "odd")
        assert await two.may_publish("iot/device/two/last")
        assert await two.received() == ("iot/device/two/last", b"")
        # It was sent nothing before this message either.
        await odd.unsubscribe("#")
        assert len(odd.messages) == 0


async def test_a_name_with_a_slash_reaches_into_another_devices_topics(
    broker: Broker, mosquitto_version: Version
) -> None:
    """So a CA for devices must sign uuids only. Since 2.1 such a name gives no rights."""
    is_open = not mosquitto_version.is_at_least("2.1")
    async with broker.client("two/x") as other, broker.client("two") as two:
        await two.subscribe("iot/device/two/#", qos=1)
        assert await other.may_publish("iot/device/two/x/y", "not two's") == is_open
        assert await two.may_publish("iot/device/two/last")
        if is_open:
            assert await two.received() == ("iot/device/two/x/y", b"not two's")
        assert await two.received() == ("iot/device/two/last", b"")


async def test_the_option_that_3_0_removes_works_until_then(
    tmp_path: Path, mosquitto_version: Version
) -> None:
    broker = Broker(tmp_path)
    assert "acl_file" in broker.conf()
    with configured(tmp_path, broker.port, broker.conf(), mosquitto_version):
        async with broker.client("one") as one:
            assert await one.may_publish("iot/device/one/x")
            assert not await one.may_publish("iot/device/two/x")


async def test_the_broker_admits_every_certificate_of_the_ca(broker: Broker) -> None:
    """The broker knows no devices: neither which are disabled, nor which have registered."""
    assert await broker.lets_in("nobody-registered-this")


async def test_a_certificate_that_was_revoked_is_refused_when_the_list_has_been_read(
    broker: Broker,
) -> None:
    assert await broker.lets_in("three")
    async with broker.client("one") as one:
        broker.revoked += [broker.issued("one"), broker.issued("three")]
        broker.write_crl()
        assert await broker.lets_in("three")
        broker.reload()
        async with asyncio.timeout(PATIENCE_S):
            while await broker.lets_in("three"):
                await asyncio.sleep(0.02)
        # A connected client stays connected.
        assert await one.may_publish("iot/device/one/x")
    assert not await broker.lets_in("one")
    assert await broker.lets_in("two")
    assert await broker.lets_in("one", broker.devices.issue_cert(common_name="one"))


async def test_no_client_is_admitted_with_an_outdated_revocation_list(broker: Broker) -> None:
    broker.write_crl(-timedelta(days=1))
    broker.reload()
    async with asyncio.timeout(PATIENCE_S):
        while await broker.lets_in("one"):
            await asyncio.sleep(0.02)
