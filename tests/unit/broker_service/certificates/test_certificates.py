"""Certificates and keys that may be uploaded; anything else is refused, quickly."""

import base64
import contextlib
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_service.certificates.reading import CA as CA_KIND
from broker_service.certificates.reading import MAX_CERTIFICATES, read_ca, read_client
from broker_service.certificates.verification import warnings_of
from broker_service.pem import MAX_CHARACTERS
from chassis.errors import InvalidInput
from tests.unit.broker_service.certificates.test_certificate_verification import Plan, made

ROOT = trustme.CA()
MIDDLE = ROOT.create_child_ca()
DEVICE = MIDDLE.issue_cert("device.example.com")
CA = ROOT.cert_pem.bytes().decode()
LEAF, ISSUER = (pem.bytes().decode() for pem in DEVICE.cert_chain_pems)
KEY = DEVICE.private_key_pem.bytes().decode()
DSA = dsa.generate_private_key(1_024)  # noqa: S505 - it is quick to make, and never used
# Bounded work takes milliseconds, unbounded work minutes.
SOON_S = 5.0
# 2 ** 19937 - 1 is prime; checking that would take a very long time.
LARGE_PRIME = 2**19937 - 1

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | dsa.DSAPublicKey


@contextlib.contextmanager
def refused(words: str, *, field: str = "pem") -> Iterator[None]:
    begun = time.process_time()
    with pytest.raises(InvalidInput, match=words) as error:
        yield
    assert error.value.field == field
    assert time.process_time() - begun < SOON_S


def root(
    public_key: PublicKey | None = None,
    *extensions: x509.ExtensionType,
    expires: timedelta = timedelta(days=365),
) -> str:
    """A certificate in PEM, for which no key is needed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=name,
        issuer_name=name,
        public_key=public_key or key.public_key(),
        serial_number=1,
        not_valid_before=now - timedelta(days=365),
        not_valid_after=now + expires,
    )
    for extension in extensions or (x509.BasicConstraints(ca=True, path_length=None),):
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, bits)


def pem_of(
    key: PrivateKey,
    form: PrivateFormat = PrivateFormat.PKCS8,
    passphrase: bytes | None = None,
) -> str:
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, protection).decode()


def block(label: str, body: str | bytes) -> str:
    """A PEM block with `body`, which is base64, or DER in any case."""
    text = body if isinstance(body, str) else base64.b64encode(body).decode()
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n"


def test_a_bundle_is_read_in_order_and_text_around_it_is_ignored() -> None:
    other = root()
    read = read_ca(f"# first\r\n{CA}\n-- é --\n{other}trailing")
    assert read.pem == CA + other
    certificates = [x509.load_pem_x509_certificate(pem.encode()) for pem in (CA, other)]
    assert read.subject == read.issuer == read.name == certificates[0].subject.rfc4514_string()
    assert read.not_before == max(each.not_valid_before_utc for each in certificates)
    assert read.not_after == min(each.not_valid_after_utc for each in certificates)
    assert read_ca(CA).fingerprint_sha256 == certificates[0].fingerprint(hashes.SHA256()).hex()


def test_a_certificate_that_is_in_a_bundle_twice_is_kept_once() -> None:
    other = root()
    assert read_ca(CA + other + CA) == read_ca(CA + other)


def test_a_chain_is_read_with_its_key_in_any_form() -> None:
    read = read_client(LEAF + ISSUER, KEY)
    assert (read.kind, read.pem) == ("client", LEAF + ISSUER)
    assert "BEGIN PRIVATE KEY" in (read.private_key or "")
    assert (read.private_key or "") not in repr(read)
    key = load_pem_private_key(KEY.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    parameters = block("EC PARAMETERS", "BggqhkjOPQMBBw==")
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        assert read_client(LEAF + ISSUER, parameters + pem_of(key, form)) == read
    # The key may be kept elsewhere, and the root may be included.
    assert read_client(LEAF + ISSUER + CA, None).private_key is None


def test_an_incomplete_chain_is_refused() -> None:
    with refused("certificate 2 did not issue the one before it"):
        read_client(LEAF + CA, KEY)
    with refused("certificate 3 did not issue the one before it"):
        read_client(LEAF + ISSUER + root(), KEY)
    with refused("the client's comes first"):
        read_client(ISSUER + LEAF, KEY)
    with refused("a second certificate that is not a CA's"):
        read_client(LEAF + LEAF + ISSUER, KEY)
    # It has the name of the leaf's issuer, and did not sign the leaf.
    forged = trustme.CA(organization_name="same", organization_unit_name="same")
    real = trustme.CA(organization_name="same", organization_unit_name="same")
    leaf = real.issue_cert("d").cert_chain_pems[0].bytes().decode()
    with refused("did not issue"):
        read_client(leaf + forged.cert_pem.bytes().decode(), None)


def test_a_text_that_is_cut_off_anywhere_is_refused() -> None:
    for end in range(0, len(LEAF + ISSUER) - 1, 97):
        text = (LEAF + ISSUER)[:end]
        if text.strip() != LEAF.strip():
            with refused("cut short|is not PEM"):
                read_client(text, KEY)


def test_a_certificate_that_is_not_a_ca_is_refused_in_a_bundle() -> None:
    for pem in (
        LEAF,
        CA + LEAF,
        root(None, x509.BasicConstraints(ca=False, path_length=None)),
        root(None, key_usage(key_cert_sign=True)),
        root(
            None,
            x509.BasicConstraints(ca=True, path_length=None),
            key_usage(key_cert_sign=False),
        ),
    ):
        with refused("not a CA's"):
            read_ca(pem)
    read_ca(
        root(None, x509.BasicConstraints(ca=True, path_length=None), key_usage(key_cert_sign=True))
    )


def test_an_expired_certificate_is_refused_at_any_place() -> None:
    expired = root(expires=-timedelta(days=1))
    for pem in (expired, CA + expired):
        with refused("expired on"):
            read_ca(pem)


def test_a_key_that_is_not_the_certificates_is_refused() -> None:
    theirs = ROOT.issue_cert("device.example.com").private_key_pem.bytes().decode()
    for key in (theirs, pem_of(rsa_key(2_048)), pem_of(rsa_key(1_024))):
        with refused("is not the key of the first certificate", field="private_key"):
            read_client(LEAF + ISSUER, key)


def test_a_key_of_an_invalid_size_is_refused() -> None:
    for kind in range(0x6E, 0x72):  # X25519, X448, Ed25519, Ed448 (RFC 8410, section 3)
        for size in range(70):
            secret = bytes((4, size + 2, 4, size)) + bytes(size)
            der = b"\x02\x01\x00\x30\x05\x06\x03\x2b\x65" + bytes((kind,)) + secret
            with refused("is not a|is neither|is not the key", field="private_key"):
                read_client(LEAF + ISSUER, block("PRIVATE KEY", b"\x30" + bytes((len(der),)) + der))


def test_a_key_with_a_passphrase_is_refused_with_the_reason() -> None:
    key = rsa_key(2_048)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        with refused("passphrase", field="private_key"):
            read_client(LEAF, pem_of(key, form, b"open sesame"))


def sequence(*numbers: int) -> bytes:
    """DER of a SEQUENCE of INTEGERs, the form of a PKCS #1 key."""
    body = b"".join(_tagged(2, n.to_bytes(n.bit_length() // 8 + 1)) for n in numbers)
    return _tagged(0x30, body)


def _tagged(tag: int, body: bytes) -> bytes:
    return bytes([tag, 0x82]) + len(body).to_bytes(2) + body


def test_a_key_that_takes_long_to_check_is_refused_at_once() -> None:
    modulus = 2**4095 + 1
    for p in (LARGE_PRIME, 2**4423 - 1, 0):
        der = sequence(0, modulus, 65_537, 3, p, 3, 3, 3, 3)
        text = block("RSA PRIVATE KEY", der)
        with refused("RSA of at most 4096 bits|is not a PEM private key", field="private_key"):
            read_client(LEAF, text)
    with refused("RSA of at most 4096 bits", field="private_key"):
        read_client(LEAF, block("PRIVATE KEY", bytes(40_000)))
    with refused("RSA of at most 4096 bits|on an elliptic curve", field="private_key"):
        read_client(LEAF, pem_of(DSA))


def test_keys_that_are_too_small_too_large_or_unusable_are_refused() -> None:
    for public_key in (
        rsa_key(1_024).public_key(),
        rsa.RSAPublicNumbers(65_537, 2**65_535 + 1),
        DSA.public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
    ):
        if isinstance(public_key, rsa.RSAPublicNumbers):
            public_key = public_key.public_key()
        with refused("holds a key that is neither"):
            read_ca(root(public_key))
    read_ca(root(rsa_key(2_048).public_key()))
    read_ca(root(ed25519.Ed25519PrivateKey.generate().public_key()))  # type: ignore[arg-type]


def test_bombs_are_refused_before_they_are_parsed() -> None:
    with refused("at most"):
        read_ca("A" * (MAX_CHARACTERS + 1))
    with refused(f"more than {MAX_CERTIFICATES} PEM blocks"):
        read_ca(block("CERTIFICATE", "AAAA") * (MAX_CERTIFICATES + 1))
    with refused("more than"):
        read_ca("-----BEGIN CERTIFICATE-----" * 2_000)
    with refused("more than"):
        read_ca("-----BEGIN A-----" * 3_500)
    with refused("is not PEM"):
        read_ca("-" * MAX_CHARACTERS)
    with refused("is not base64"):
        read_ca(block("CERTIFICATE", "=" * 60_000))
    with refused("is not a PEM certificate"):
        read_ca(block("CERTIFICATE", "MIIB" * 15_000))
    # Nested as deeply as the size allows.
    with refused("is not a PEM certificate"):
        read_ca(block("CERTIFICATE", b"\x30\x80" * 20_000))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not PEM"),
        ("\0", "is not PEM"),
        ("no certificate", "is not PEM"),
        (block("CERTIFICATE", ""), "is not a PEM certificate"),
        (block("CERTIFICATE", "AAAA"), "is not a PEM certificate"),
        (block("X509 CRL", "AAAA"), "PEM blocks that are not certificates"),
        (CA + block("PUBLIC KEY", "AAAA"), "PEM blocks that are not certificates"),
        (CA + KEY, "contains a private key"),
        (CA.replace("END", "END OF"), "cut short"),
        (CA + "-----BEGIN CERTIFICATE-----\nMIIB", "cut short"),
        (CA.replace("M", "*", 1), "is not base64"),
    ],
    ids=lambda value: "",
)
def test_a_text_that_is_not_a_certificate_is_refused(text: str, words: str) -> None:
    with refused(words):
        read_ca(text)


def test_a_name_that_cannot_be_read_is_refused_at_any_place() -> None:
    other = root()
    der = x509.load_pem_x509_certificate(other.encode()).public_bytes(Encoding.DER)
    # This is not UTF-8.
    damaged = block("CERTIFICATE", der.replace(b"root", b"\xa9oot"))
    for text in (damaged, CA + damaged):
        with refused("is not a PEM certificate"):
            read_ca(text)
    # A certificate that was stored earlier.
    [problem] = warnings_of(CA_KIND, damaged, datetime.now(UTC))
    assert problem.reason == "UNREADABLE"


def test_a_damaged_certificate_that_is_read_can_be_loaded_and_used() -> None:
    other = root()
    der = x509.load_pem_x509_certificate(other.encode()).public_bytes(Encoding.DER)
    read = 0
    for place in range(len(der)):
        damaged = bytes([*der[:place], der[place] ^ 0x80, *der[place + 1 :]])
        try:
            found = read_ca(CA + block("CERTIFICATE", damaged))
        except InvalidInput:
            continue
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.pem)
        warnings_of(CA_KIND, found.pem, datetime.now(UTC), host="mqtt.example.com")
        read += 1
    assert 0 < read < len(der)


def test_a_certificate_that_openssl_cannot_load_is_refused() -> None:
    der = made("root", Plan()).certificate.public_bytes(Encoding.DER)
    # It is signed with an unknown algorithm, whose parameters are malformed.
    damaged = der.replace(b"\x01\x01\x0b\x05\x00", b"\x01\x00\x00\x00\x00")
    assert damaged != der
    with refused("holds a certificate that OpenSSL cannot load"):
        read_ca(block("CERTIFICATE", damaged))


DER = x509.load_pem_x509_certificate(LEAF.encode()).public_bytes(Encoding.DER)


@settings(max_examples=300, deadline=None)
@given(
    place=st.integers(0, len(DER) - 1),
    byte=st.integers(0, 255),
    is_cut=st.booleans(),
)
def test_damage_is_refused_or_harmless(place: int, byte: int, *, is_cut: bool) -> None:
    damaged = DER[:place] + bytes([byte]) + (b"" if is_cut else DER[place + 1 :])
    for read in (read_ca, lambda pem: read_client(pem + ISSUER, KEY)):
        with contextlib.suppress(InvalidInput):
            read(block("CERTIFICATE", damaged))
