"""Checks whether common TLS clients can verify with certificates: finds what OpenSSL would refuse.

It applies OpenSSL's rules at security level 2 without X509_V_FLAG_PARTIAL_CHAIN, because most
clients and brokers use these settings. Each warning is about a fault that another certificate can
correct.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier

from broker_service.certificates.reading import CA, MAX_CERTIFICATES, UNREADABLE, loaded
from broker_service.pem import blocks_of
from chassis.validation import CONTROL

Extension = TypeVar("Extension", bound=x509.ExtensionType)

MAX_SHOWN = 100
KEPT_IN_MEMORY = 512
# A critical extension that a client does not know ends the handshake (RFC 5280, section 4.2).
KNOWN_EXTENSIONS = frozenset(
    {
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.OCSP_NO_CHECK,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        # Netscape's certificate type; IP address and AS number delegation.
        ObjectIdentifier("2.16.840.1.113730.1.1"),
        ObjectIdentifier("1.3.6.1.5.5.7.1.7"),
        ObjectIdentifier("1.3.6.1.5.5.7.1.8"),
    }
)
WEAK_HASHES = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why a certificate cannot be used. `reason` is UPPER_SNAKE and stable, `detail` is
    for people.
    """

    reason: str
    detail: str


def warnings_of(kind: str, pem: str, now: datetime, *, host: str | None = None) -> list[Problem]:
    """The warnings about a stored CA bundle or client's chain. Each certificate of a CA bundle is
    checked with its chain to a root. With `host`, the name or address of a broker, this also checks
    whether the CAs may issue certificates for it.
    """
    try:
        chains = _chains_of(kind, pem)
    except UNREADABLE:
        # An earlier version, with weaker checks, stored this certificate.
        return [Problem("UNREADABLE", "holds a certificate that TLS clients cannot read")]
    found: dict[Problem, None] = {}
    for chain in chains:
        found.update(dict.fromkeys((*chain.faults, *_faults_of_time(chain.certificates, now))))
    if host is not None and chains:
        refusals = [fault for chain in chains if (fault := _fault_of_host(chain, host))]
        # Any CA of the bundle may have issued the broker's certificate, so one that fits is enough.
        if len(refusals) == len(chains):
            found.update(dict.fromkeys(refusals))
    return list(found)


@dataclass(frozen=True, slots=True)
class _Chain:
    """A certificate with its chain to a root, and the warnings that do not depend on time."""

    certificates: tuple[x509.Certificate, ...]
    faults: tuple[Problem, ...]


@lru_cache(maxsize=KEPT_IN_MEMORY)
def _chains_of(kind: str, pem: str) -> tuple[_Chain, ...]:
    found = loaded(blocks_of(pem, field="pem", most=MAX_CERTIFICATES))
    if kind == CA:
        return tuple(_chain_in_bundle(certificate, found) for certificate in found)
    usages = [(certificate, ExtendedKeyUsageOID.CLIENT_AUTH) for certificate in found]
    faults = [*_faults_of_each(usages), *_faults_of_lengths(found[1:])]
    usage = _extension(found[0], x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.key_agreement):
        faults.append(
            Problem(
                "WRONG_PURPOSE",
                f"{_shown(found[0])}: its key usage lacks digitalSignature, which a client needs",
            )
        )
    return (_Chain(tuple(found), tuple(faults)),)


def _chain_in_bundle(first: x509.Certificate, bundle: Sequence[x509.Certificate]) -> _Chain:
    chain = [first]
    while not _is_self_signed(chain[-1]):
        issuers = [
            other for other in bundle if other not in chain and _may_have_issued(other, chain[-1])
        ]
        if not issuers:
            missing = Problem(
                "NO_ROOT",
                f"{_shown(first)}: the self-signed root that it leads to is not in the bundle, and"
                " OpenSSL does not stop before one; add the certificate of"
                f" {_cut(chain[-1].issuer.rfc4514_string())}",
            )
            return _Chain(tuple(chain), (missing,))
        # A self-signed issuer ends the search; else the issuer that is valid longest is used.
        chain.append(
            max(issuers, key=lambda each: (_is_self_signed(each), each.not_valid_after_utc))
        )
    usages = [(certificate, ExtendedKeyUsageOID.SERVER_AUTH) for certificate in chain]
    return _Chain(tuple(chain), (*_faults_of_each(usages), *_faults_of_lengths(chain)))


def _faults_of_each(
    usages: Iterable[tuple[x509.Certificate, ObjectIdentifier]],
) -> Iterable[Problem]:
    for certificate, purpose in usages:
        name = _shown(certificate)
        if not _is_self_signed(certificate) and _is_weak(certificate):
            yield Problem(
                "WEAK_SIGNATURE",
                f"{name}: is signed with SHA-1, MD5 or something older, which TLS clients refuse",
            )
        for extension in certificate.extensions:
            if extension.critical and extension.oid not in KNOWN_EXTENSIONS:
                yield Problem(
                    "UNKNOWN_CRITICAL_EXTENSION",
                    f"{name}: has the critical extension {extension.oid.dotted_string}, which TLS"
                    " clients do not know",
                )
        usage = _extension(certificate, x509.ExtendedKeyUsage)
        if usage is not None and purpose not in usage:
            what = "servers" if purpose == ExtendedKeyUsageOID.SERVER_AUTH else "clients"
            yield Problem(
                "WRONG_PURPOSE", f"{name}: its extended key usage is not that of TLS {what}"
            )


def _faults_of_lengths(issuers: Sequence[x509.Certificate]) -> Iterable[Problem]:
    """Each of `issuers` has issued the previous certificate (RFC 5280, section 4.2.1.9)."""
    below = 0
    for issuer in issuers:
        constraints = _extension(issuer, x509.BasicConstraints)
        allowed = constraints.path_length if constraints else None
        if allowed is not None and below > allowed:
            yield Problem(
                "PATH_TOO_LONG",
                f"{_shown(issuer)}: allows {allowed} CA certificates below it, here are {below}",
            )
        below += issuer.subject != issuer.issuer


def _faults_of_time(certificates: Iterable[x509.Certificate], now: datetime) -> Iterable[Problem]:
    for certificate in certificates:
        if now < certificate.not_valid_before_utc:
            yield Problem(
                "NOT_YET_VALID",
                f"{_shown(certificate)}: is valid from"
                f" {certificate.not_valid_before_utc:%F %R} UTC",
            )
        if now > certificate.not_valid_after_utc:
            yield Problem(
                "EXPIRED",
                f"{_shown(certificate)}: expired on {certificate.not_valid_after_utc:%F %R} UTC",
            )


def _fault_of_host(chain: _Chain, host: str) -> Problem | None:
    """The fault if a CA's name constraints exclude the host (RFC 5280, section 4.2.1.10)."""
    for certificate in chain.certificates:
        constraints = _extension(certificate, x509.NameConstraints)
        if constraints is None:
            continue
        covers = _covering(host)
        permitted, excluded = (
            [found for name in subtrees or () if (found := covers(name)) is not None]
            for subtrees in (constraints.permitted_subtrees, constraints.excluded_subtrees)
        )
        if any(excluded) or (permitted and not any(permitted)):
            return Problem(
                "HOST_NOT_PERMITTED", f"{_shown(certificate)}: may not vouch for the host {host}"
            )
    return None


def _covering(host: str) -> Callable[[x509.GeneralName], bool | None]:
    """A function that returns whether a subtree covers the host; None for another kind of name."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.lower()

        def covers_name(subtree: x509.GeneralName) -> bool | None:
            if not isinstance(subtree, x509.DNSName):
                return None
            base = subtree.value.lower()
            return (
                not base
                or name == base
                or name.endswith(base if base.startswith(".") else f".{base}")
            )

        return covers_name

    def covers_address(subtree: x509.GeneralName) -> bool | None:
        if not isinstance(subtree, x509.IPAddress):
            return None
        network = subtree.value
        return isinstance(network, IPv4Network | IPv6Network) and address in network

    return covers_address


def _may_have_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer or not _identifies(certificate, issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except UNREADABLE:
        # The algorithm is no longer supported, for which there is another warning.
        return _is_weak(certificate)
    return True


def _is_self_signed(certificate: x509.Certificate) -> bool:
    # The signature is not verified, because OpenSSL does not verify the signature of a root either.
    return certificate.subject == certificate.issuer and _identifies(certificate, certificate)


def _identifies(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the authority's key identifier matches, or is absent."""
    authority = _extension(certificate, x509.AuthorityKeyIdentifier)
    if authority is None:
        return True
    own = _extension(issuer, x509.SubjectKeyIdentifier)
    key, serial = authority.key_identifier, authority.authority_cert_serial_number
    return (key is None or own is None or key == own.digest) and (
        serial is None or serial == issuer.serial_number
    )


def _is_weak(certificate: x509.Certificate) -> bool:
    try:
        return isinstance(certificate.signature_hash_algorithm, WEAK_HASHES)
    except UnsupportedAlgorithm:
        return True


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _shown(certificate: x509.Certificate) -> str:
    return _cut(certificate.subject.rfc4514_string()) or "a certificate without a subject"


def _cut(name: str) -> str:
    name = CONTROL.sub(" ", name)
    return name if len(name) <= MAX_SHOWN else f"{name[: MAX_SHOWN - 1]}…"
