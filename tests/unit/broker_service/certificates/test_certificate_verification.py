"""Warnings about certificates agree with OpenSSL in a real handshake."""

import contextlib
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_service.certificates.reading import CA, CLIENT, read_ca, read_client
from broker_service.certificates.verification import warnings_of
from chassis.errors import InvalidInput

NOW = datetime.now(UTC)
HOST = "mqtt.example.com"
KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65_537, 2_048)
SHA256_OID = bytes.fromhex("2a864886f70d01010b")
OLD_HASHES: dict[str, tuple[bytes, hashes.HashAlgorithm]] = {
    "sha1": (bytes.fromhex("2a864886f70d010105"), hashes.SHA1()),  # noqa: S303
    "md5": (bytes.fromhex("2a864886f70d010104"), hashes.MD5()),  # noqa: S303
}
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        pem: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem.decode()


@dataclass(frozen=True)
class Plan:
    """The special properties of a certificate; days are counted from now."""

    path_length: int | None = None
    usage: str = ""  # server, client, both or empty
    critical_unknown: bool = False
    begins: int = -10
    ends: int = 10
    old_hash: str = ""
    with_identifiers: bool = True
    permitted: tuple[x509.GeneralName, ...] = ()
    excluded: tuple[x509.GeneralName, ...] = ()
    digital_signature: bool | None = None
    sans: tuple[str, ...] = ("mqtt.example.com",)


def made(
    name: str, plan: Plan, issuer: Made | None = None, *, is_ca: bool = True, key: Any = None
) -> Made:
    key = key or RSA_KEY
    signer = issuer.key if issuer else key
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=plan.begins))
        .not_valid_after(NOW + timedelta(days=plan.ends))
        .add_extension(
            x509.BasicConstraints(ca=is_ca, path_length=plan.path_length if is_ca else None), True
        )
    )
    if plan.with_identifiers:
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    purposes = {
        "server": [ExtendedKeyUsageOID.SERVER_AUTH],
        "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
        "both": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        "any": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        "other": [ExtendedKeyUsageOID.CODE_SIGNING],
    }
    if plan.usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes[plan.usage]), False)
    if plan.critical_unknown:
        builder = builder.add_extension(UNKNOWN, True)
    if plan.permitted or plan.excluded:
        builder = builder.add_extension(
            x509.NameConstraints(list(plan.permitted) or None, list(plan.excluded) or None), True
        )
    if plan.digital_signature is not None:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=plan.digital_signature,
                content_commitment=not plan.digital_signature,
                **dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement"), False),
                **dict.fromkeys(("key_cert_sign", "crl_sign"), False),
                **dict.fromkeys(("encipher_only", "decipher_only"), False),
            ),
            True,
        )
    if not is_ca and plan.sans:
        names = [
            x509.IPAddress(ip_address(san)) if san[0].isdigit() else x509.DNSName(san)
            for san in plan.sans
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    certificate = builder.sign(signer, hashes.SHA256())
    if plan.old_hash and isinstance(signer, rsa.RSAPrivateKey):
        certificate = signed_as_of_old(certificate, signer, plan.old_hash)
    return Made(certificate, key)


def signed_as_of_old(
    certificate: x509.Certificate, signer: rsa.RSAPrivateKey, name: str
) -> x509.Certificate:
    """The same certificate with an old signature, which the library can verify and not make."""
    oid, algorithm = OLD_HASHES[name]
    inner = certificate.tbs_certificate_bytes.replace(SHA256_OID, oid)
    signature = signer.sign(inner, padding.PKCS1v15(), algorithm)
    der = certificate.public_bytes(Encoding.DER)
    der = der.replace(certificate.tbs_certificate_bytes, inner).replace(SHA256_OID, oid)
    return x509.load_der_x509_certificate(der.replace(certificate.signature, signature))


def connects(server: ssl.SSLContext, client: ssl.SSLContext, host: str = HOST) -> bool:
    """Whether a handshake without a network succeeds on both sides."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[int] = set()
    for _ in range(10):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
            done.add(number)
        if len(done) == len(ends):
            # With TLS 1.3 the server verifies a client's certificate after the client's handshake.
            return True
    return False


@contextlib.contextmanager
def written(*texts: str) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, text in enumerate(texts):
            (Path(folder) / str(number)).write_text(text)
            files.append(str(Path(folder) / str(number)))
        yield files


def context(protocol: int, certificate: str = "", key: str = "", ca: str = "") -> ssl.SSLContext:
    found = ssl.SSLContext(protocol)
    if certificate:
        with written(certificate, key) as (certificate_file, key_file):
            found.load_cert_chain(certificate_file, key_file)
    if ca:
        found.load_verify_locations(cadata=ca)
        found.verify_mode = ssl.CERT_REQUIRED
    return found


def broker_is_verified(bundle: str, issuer: Made, host: str = HOST) -> bool:
    """Whether a client with the bundle accepts a broker with a certificate of `issuer`."""
    leaf = made("leaf", Plan(usage="server", sans=(host,)), issuer, is_ca=False, key=KEY)
    server = context(ssl.PROTOCOL_TLS_SERVER, leaf.pem, leaf.key_pem)
    return connects(server, context(ssl.PROTOCOL_TLS_CLIENT, ca=bundle), host)


PLANS = st.builds(
    Plan,
    path_length=st.sampled_from([None, None, None, 0, 1]),
    usage=st.sampled_from(["", "", "", "server", "client", "both", "any", "other"]),
    critical_unknown=st.sampled_from([False, False, False, True]),
    begins=st.sampled_from([-10, -10, -10, 1]),
    old_hash=st.sampled_from(["", "", "", "sha1", "md5"]),
    with_identifiers=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(
    plans=st.lists(PLANS, min_size=1, max_size=4),
    first_missing=st.integers(0, 4),
    order=st.randoms(use_true_random=False),
)
def test_a_bundle_is_warned_of_exactly_if_a_broker_cannot_be_verified(
    plans: list[Plan], first_missing: int, order: Any
) -> None:
    chain: list[Made] = []
    for number, plan in enumerate(plans):
        above = chain[-1] if chain else None
        chain.append(made(f"ca {number}", plan, above))
    # The last one is always there; those above it may be missing.
    kept = chain[min(first_missing, len(chain) - 1) :] if first_missing < 3 else chain
    shuffled = order.sample(kept, len(kept))
    pem = read_ca("".join(each.pem for each in shuffled)).pem
    usable = [broker_is_verified(pem, each) for each in kept]
    found = warnings_of(CA, pem, datetime.now(UTC))
    assert all(usable) == (not found), (usable, found)


@settings(max_examples=200, deadline=None)
@given(
    leaf=PLANS,
    middle=PLANS,
    digital_signature=st.sampled_from([None, None, True, False]),
)
def test_a_client_is_warned_of_exactly_if_a_broker_would_refuse_it(
    leaf: Plan, middle: Plan, digital_signature: bool | None
) -> None:
    root = made("root", Plan())
    issuer = made("middle", middle, root)
    own = made("client", replace(leaf, digital_signature=digital_signature), issuer, is_ca=False)
    pem = own.pem + issuer.pem
    server_own = made("server", Plan(), made("other", Plan()), is_ca=False)
    server = context(ssl.PROTOCOL_TLS_SERVER, server_own.pem, server_own.key_pem, root.pem)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The client's own check of its certificate is not tested, nor is the server's.
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    with written(pem, own.key_pem) as (certificate_file, key_file):
        client.load_cert_chain(certificate_file, key_file)
    try:
        found = warnings_of(CLIENT, read_client(pem, own.key_pem).pem, datetime.now(UTC))
    except InvalidInput:
        # A certificate with an old signature is refused at once, whatever its issuer.
        assert leaf.old_hash
        assert not connects(server, client)
        return
    assert connects(server, client) == (not found), found


NAMES: list[x509.GeneralName] = [
    x509.DNSName("example.com"),
    x509.DNSName(HOST),
    x509.DNSName("other.example"),
    x509.IPAddress(ip_network("10.0.0.0/8")),
    x509.IPAddress(ip_network("192.168.0.0/16")),
    x509.RFC822Name("example.org"),
]


@settings(max_examples=60, deadline=None)
@given(
    host=st.sampled_from([HOST, "10.0.0.7"]),
    permitted=st.lists(st.sampled_from(NAMES), max_size=3),
    excluded=st.lists(st.sampled_from(NAMES), max_size=2),
)
def test_a_host_that_its_ca_may_not_certify_is_warned_of(
    host: str, permitted: list[x509.GeneralName], excluded: list[x509.GeneralName]
) -> None:
    root = made("root", Plan(permitted=tuple(permitted), excluded=tuple(excluded)))
    pem = read_ca(root.pem).pem
    found = warnings_of(CA, pem, datetime.now(UTC), host=host)
    assert not warnings_of(CA, pem, datetime.now(UTC))
    assert broker_is_verified(pem, root, host) == (not found)


def test_a_certificate_that_expired_later_is_warned_of() -> None:
    root = made("root", Plan(ends=10))
    pem = read_ca(root.pem).pem
    assert not warnings_of(CA, pem, NOW + timedelta(days=9))
    assert [each.reason for each in warnings_of(CA, pem, NOW + timedelta(days=11))] == ["EXPIRED"]


def test_certificates_that_issue_one_another_end() -> None:
    """The same key under two names, each of which issued the other: there is no root and no endless
    loop.
    """
    one, other = made("x", Plan()), made("y", Plan())
    bundle = [made("x", replace(Plan(), ends=n + 1), other) for n in range(8)]
    bundle += [made("y", replace(Plan(), ends=n + 1), one) for n in range(8)]
    pem = read_ca("".join(each.pem for each in bundle)).pem
    assert {each.reason for each in warnings_of(CA, pem, NOW)} == {"NO_ROOT"}
