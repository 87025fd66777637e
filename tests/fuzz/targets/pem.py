"""CA bundles, chains of clients and private keys, as text or as DER that is wrapped in PEM.

Reading what was read gives the same again, and OpenSSL loads it.
"""

import base64
import ssl
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from broker_service.certificates.private_keys import read_private_key
from broker_service.certificates.reading import Certificate, read_ca, read_client
from broker_service.certificates.verification import warnings_of
from broker_service.pem import united
from chassis.errors import InvalidInput
from tests.fuzz.given import chosen
from tests.unit.broker_service.certificates.test_certificate_verification import (
    RSA_KEY,
    Made,
    Plan,
    made,
)

NAMES = (x509.DNSName("example.com"),)
ED_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EC_KEY = ec.derive_private_key(1_234_567, ec.SECP256R1())
ROOT = made("root", Plan(path_length=1, permitted=NAMES, usage="both"))
MIDDLE = made("middle", Plan(usage="client", critical_unknown=True), ROOT, key=EC_KEY)
DEVICE = made(
    "device", Plan(usage="client", digital_signature=True), MIDDLE, is_ca=False, key=ED_KEY
)
KEYS: tuple[Any, ...] = (RSA_KEY, EC_KEY, ED_KEY)
HOSTS = ("mqtt.example.com", "192.0.2.1", "2001:db8::1")
# In front of a certificate's DER: two bytes, its length.
LENGTH_BYTES = 2


def _der(one: Made) -> bytes:
    return one.certificate.public_bytes(Encoding.DER)


def _framed(*ders: bytes) -> bytes:
    return b"".join(len(der).to_bytes(LENGTH_BYTES) + der for der in ders)


def _keys() -> list[bytes]:
    old = PrivateFormat.TraditionalOpenSSL
    found = []
    for index, key in enumerate(KEYS):
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        found.append(bytes((4, index)) + der)
    # Checking an RSA key takes long, so there is only one seed of that kind.
    pem = ED_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    found.append(bytes((5, 2)) + pem)
    found.append(bytes((5, 1)) + EC_KEY.private_bytes(Encoding.PEM, old, NoEncryption()))
    return found


SEEDS = (
    b"\0" + (ROOT.pem + MIDDLE.pem).encode(),
    b"\1" + (DEVICE.pem + MIDDLE.pem + ROOT.pem).encode(),
    b"\0 subject=/CN=x\n" + ROOT.pem.replace("CERTIFICATE", "X509 CERTIFICATE").encode(),
    b"\0-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
    b"\2" + _framed(_der(ROOT), _der(MIDDLE)),
    b"\2" + _framed(_der(MIDDLE)),
    b"\3" + _framed(_der(DEVICE), _der(MIDDLE), _der(ROOT)),
    b"\3" + _framed(_der(DEVICE)),
    *_keys(),
)
WORDS = (
    *(b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----", b"\n", b"\r\n"),
    *(b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----", b"EC PARAMETERS", b"="),
    *(b"Proc-Type: 4,ENCRYPTED", b"X509 CERTIFICATE", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff"),
    *(b"\x02\x01\x00", b"\x02\x01\xff", b"\x05\x00", b"\x06\x03\x55\x1d", b"\x0c\x00", b"\x1c\x04"),
    *(b"\x17\x0d", b"\x18\x0f", b"\x82\x00", b"\x16\x01\x00", b"\x03\x02\x01\x06", b"\x01\x01\xff"),
)


def attempt(data: bytes) -> None:
    mode, rest = chosen(data, range(6))
    if mode >= 4:
        _attempt_key(rest, is_der=mode == 4)
        return
    text = _wrapped(rest) if mode >= 2 else rest.decode("utf-8", "replace")
    read = read_client if mode % 2 else _read_ca
    try:
        found = read(text, None)
    except InvalidInput:
        return
    again = read(found.pem, None)
    assert again == found
    assert united(found.pem, found.pem) == found.pem or mode % 2
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.pem)
    for host in HOSTS:
        warnings_of(found.kind, found.pem, datetime.now(UTC), host=host)


def _read_ca(text: str, _: None) -> Certificate:
    return read_ca(text)


def _wrapped(framed: bytes) -> str:
    text, at = "", 0
    while at < len(framed):
        size = int.from_bytes(framed[at : at + LENGTH_BYTES])
        text += ssl.DER_cert_to_PEM_cert(framed[at + LENGTH_BYTES :][:size])
        at += LENGTH_BYTES + size
    return text


def _attempt_key(data: bytes, *, is_der: bool) -> None:
    key, rest = chosen(data, KEYS)
    body = base64.b64encode(rest).decode()
    pem = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"
    text = pem if is_der else rest.decode("utf-8", "replace")
    try:
        found = read_private_key(text, key.public_key())
    except InvalidInput:
        return
    loaded = load_pem_private_key(found.encode(), None)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert loaded.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
