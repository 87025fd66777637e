"""A certificate in JSON."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from mooring.broker.v1 import certificates_pb2
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.administration.fields import moment_of, named, optional, present
from gateway.administration.listing import Page
from gateway.documentation import documented
from gateway.examples import MOMENT

Kind = Literal["ca", "client"]
KINDS: dict[str, certificates_pb2.CertificateKind.ValueType] = {
    "ca": certificates_pb2.CERTIFICATE_KIND_CA,
    "client": certificates_pb2.CERTIFICATE_KIND_CLIENT,
}
UNSPECIFIED = certificates_pb2.CERTIFICATE_KIND_UNSPECIFIED
KIND_OF = {kind: name for name, kind in KINDS.items()}

# The certificates of the examples, which are valid until 2099. No process has their private keys.
CA_PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    "MIH4MIGroAMCAQICAgfpMAUGAytlcDAaMRgwFgYDVQQDDA9FeGFtcGxlIENBIDIw\n"
    "MjUwIBcNMjUwMTAxMDAwMDAwWhgPMjA5OTEyMzEwMDAwMDBaMBoxGDAWBgNVBAMM\n"
    "D0V4YW1wbGUgQ0EgMjAyNTAqMAUGAytlcAMhAOp4TARiAljUquDCG8ddAu3RhWCx\n"
    "VILucSulzABXdExJoxMwETAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAEY9ZSyp\n"
    "1yr8wFInn5hJtLPn7C0RWKAP2aD0ZI9quLRW42YvrSwaHF+l3IDOJ3edkqishqq9\n"
    "HC+iazRk5uSsBAo=\n"
    "-----END CERTIFICATE-----\n"
)
NEXT_CA_PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    "MIH4MIGroAMCAQICAgfqMAUGAytlcDAaMRgwFgYDVQQDDA9FeGFtcGxlIENBIDIw\n"
    "MjYwIBcNMjYwMTAxMDAwMDAwWhgPMjA5OTEyMzEwMDAwMDBaMBoxGDAWBgNVBAMM\n"
    "D0V4YW1wbGUgQ0EgMjAyNjAqMAUGAytlcAMhAC10yYNEYiWCPRkZ4AcM9x45MV+V\n"
    "bkDkIO6bE157C8FOoxMwETAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAO+upGgN\n"
    "2XHxvZMlsqqPEoq8y8MHYj34OSbsYmuSFev+hUIOdvEaQMR2PsSUJqukHk2jbxID\n"
    "Ve2dUdEtJipcXg8=\n"
    "-----END CERTIFICATE-----\n"
)

CertificateName = Annotated[str, documented(minLength=1, maxLength=255)]
Pem = Annotated[
    str,
    documented(
        maxLength=64 * 1024,
        description="At most 16 certificates. In a chain of a client certificate, the client's "
        "own comes first, and each certificate is issued by the next.",
    ),
]
PrivateKey = Annotated[
    str,
    documented(
        writeOnly=True,
        description="The private key of a client certificate: PEM, without a passphrase. Can be "
        "set and never read.",
    ),
]


class CertificateText(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The contents of a new certificate."""

    name: (
        Annotated[
            CertificateName, Meta(description="If it is left out, the subject of the certificate.")
        ]
        | UnsetType
    ) = UNSET
    pem: Pem
    private_key: PrivateKey | UnsetType | None = UNSET


class NewCertificate(CertificateText, kw_only=True, frozen=True):
    """A new certificate."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"kind": "ca", "name": "Example CA 2025", "pem": CA_PEM}

    kind: Kind


class CertificateChange(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The name of a certificate, its only field that can change."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"name": "Example CA, the first"}

    name: CertificateName


class CertificateWarning(Struct, kw_only=True, frozen=True):
    """A reason why TLS clients cannot verify with a certificate."""

    reason: Annotated[
        str,
        Meta(
            description="UPPER_SNAKE and stable, for programs: NO_ROOT, NOT_YET_VALID, EXPIRED,"
            " WEAK_SIGNATURE, WRONG_PURPOSE, PATH_TOO_LONG, UNKNOWN_CRITICAL_EXTENSION,"
            " HOST_NOT_PERMITTED or UNREADABLE."
        ),
    ]
    detail: Annotated[str, Meta(description="For people; may change.")]


class ChainLink(Struct, kw_only=True, frozen=True):
    """One certificate of a bundle or chain."""

    subject: Annotated[str, Meta(description="As in RFC 4514.")]
    issuer: str
    serial_number: Annotated[str, Meta(description="In hex.")]
    fingerprint_sha256: Annotated[str, Meta(description="In hex.")]
    not_before: datetime | None
    not_after: datetime | None
    public_key: Annotated[
        str, Meta(description="The kind of its key, for people: RSA 2048, P-256, Ed25519.")
    ]


CHAIN: list[dict[str, Any]] = [
    {
        "subject": "CN=Example CA 2025",
        "issuer": "CN=Example CA 2025",
        "serial_number": "7e9",
        "fingerprint_sha256": "0a962c6a0cd96648c66e51a06f59196ee9d01b7920259a3f7f77e2a4e14c71e1",
        "not_before": "2025-01-01T00:00:00Z",
        "not_after": "2099-12-31T00:00:00Z",
        "public_key": "Ed25519",
    }
]


class ListedCertificate(Struct, kw_only=True, frozen=True):
    """A certificate in lists: without its PEM."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "id": 1,
        "kind": "ca",
        "name": "Example CA 2025",
        "has_private_key": False,
        "fingerprint_sha256": "0a962c6a0cd96648c66e51a06f59196ee9d01b7920259a3f7f77e2a4e14c71e1",
        "subject": "CN=Example CA 2025",
        "issuer": "CN=Example CA 2025",
        "not_before": "2025-01-01T00:00:00Z",
        "not_after": "2099-12-31T00:00:00Z",
        "created_at": MOMENT,
        "broker_ids": [1],
        "devices": 1,
        "replacement_id": None,
        "warnings": [],
        "revision": 1,
    }

    id: int
    kind: Kind
    name: str
    has_private_key: bool
    fingerprint_sha256: Annotated[
        str, Meta(description="In hex, over all of its certificates in order.")
    ]
    subject: Annotated[
        str, Meta(description="The subject of its first certificate, as in RFC 4514.")
    ]
    issuer: str
    not_before: Annotated[
        datetime | None, Meta(description="The time in which all of its certificates are valid.")
    ]
    not_after: datetime | None
    created_at: datetime | None
    broker_ids: Annotated[list[int], Meta(description="The brokers that use it.")]
    devices: Annotated[
        int | None,
        Meta(
            description="The active devices whose last answer named one of these brokers first. "
            "Null in the answers to changes."
        ),
    ]
    replacement_id: Annotated[
        int | None,
        Meta(
            description="The id of its replacement while a rotation is in progress; see `rotation`."
        ),
    ]
    warnings: Annotated[
        list[CertificateWarning],
        Meta(description="Problems of the certificate now; empty if there are none."),
    ]
    revision: Annotated[int, Meta(description="Another number if it has another name.")]


class Certificate(ListedCertificate, kw_only=True, frozen=True):
    """A certificate with its PEM, without its private key."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        **ListedCertificate.EXAMPLE,
        "pem": CA_PEM,
        "chain": CHAIN,
    }

    pem: str
    chain: Annotated[
        list[ChainLink],
        Meta(
            description="Its certificates, in the order of `pem`. Empty if TLS clients cannot "
            "read it."
        ),
    ]


class CheckedCertificate(Struct, kw_only=True, frozen=True):
    """A certificate as an upload would store it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "existing_id": 1,
        **{
            name: value
            for name, value in ListedCertificate.EXAMPLE.items()
            if name
            not in ("id", "created_at", "broker_ids", "devices", "replacement_id", "revision")
        },
        "pem": CA_PEM,
        "chain": CHAIN,
    }

    existing_id: Annotated[
        int | None,
        Meta(description="The id of the same certificate, if it was uploaded before."),
    ]
    kind: Kind
    name: str
    has_private_key: bool
    fingerprint_sha256: str
    subject: str
    issuer: str
    not_before: datetime | None
    not_after: datetime | None
    warnings: list[CertificateWarning]
    pem: Annotated[str, Meta(description="Without text around the certificates.")]
    chain: list[ChainLink]


class CertificatePage(Page[ListedCertificate], frozen=True):
    """Certificates."""


def new_certificate(given: CertificateText, kind: str = "") -> certificates_pb2.NewCertificate:
    """The message to the broker service; `kind` is empty where the request determines it."""
    fields = {**present(named(given)), "kind": KINDS.get(kind, UNSPECIFIED)}
    return certificates_pb2.NewCertificate(**fields)


def certificate_json(certificate: certificates_pb2.Certificate) -> Certificate:
    return Certificate(
        pem=certificate.pem, chain=_chain_json(certificate.chain), **_listed(certificate)
    )


def checked_json(answer: certificates_pb2.CheckCertificateResponse) -> CheckedCertificate:
    certificate = answer.certificate
    values = {**_listed(certificate), "pem": certificate.pem}
    return CheckedCertificate(
        existing_id=optional(answer, "existing_id"),
        chain=_chain_json(certificate.chain),
        **{
            name: value
            for name, value in values.items()
            if name in CheckedCertificate.__struct_fields__
        },
    )


def _chain_json(chain: Iterable[certificates_pb2.ChainLink]) -> list[ChainLink]:
    return [
        ChainLink(
            subject=link.subject,
            issuer=link.issuer,
            serial_number=link.serial_number,
            fingerprint_sha256=link.fingerprint_sha256,
            not_before=moment_of(link, "not_before"),
            not_after=moment_of(link, "not_after"),
            public_key=link.public_key,
        )
        for link in chain
    ]


def listed_json(certificate: certificates_pb2.Certificate) -> ListedCertificate:
    return ListedCertificate(**_listed(certificate))


def _listed(certificate: certificates_pb2.Certificate) -> dict[str, Any]:
    return {
        "id": certificate.id,
        "kind": KIND_OF[certificate.kind],
        "name": certificate.name,
        "has_private_key": certificate.has_private_key,
        "fingerprint_sha256": certificate.fingerprint_sha256,
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "not_before": moment_of(certificate, "not_before"),
        "not_after": moment_of(certificate, "not_after"),
        "created_at": moment_of(certificate, "created_at"),
        "broker_ids": list(certificate.broker_ids),
        "devices": optional(certificate, "devices"),
        "replacement_id": optional(certificate, "replacement_id"),
        "warnings": warnings_json(certificate.warnings),
        "revision": certificate.revision,
    }


def warnings_json(
    warnings: Iterable[certificates_pb2.CertificateWarning],
) -> list[CertificateWarning]:
    return [CertificateWarning(reason=each.reason, detail=each.detail) for each in warnings]
