"""gRPC: CA bundles and client certificates."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mooring.broker.v1 import certificates_pb2 as pb
from mooring.broker.v1 import certificates_pb2_grpc

from broker_service.certificates.chain import ChainLink, chain_of
from broker_service.certificates.database import revision_of
from broker_service.certificates.reading import (
    CA,
    CLIENT,
    MAX_NAME,
    Certificate,
    read_ca,
    read_client,
)
from broker_service.certificates.store import CertificateStore, Wanted
from broker_service.certificates.verification import warnings_of
from broker_service.refreshing import Refresh
from broker_service.settings import MAX_INT32
from chassis import pages
from chassis.errors import InvalidInput
from chassis.searching import start_of
from chassis.server import Context
from chassis.servicers import allows
from chassis.times import timestamp_of
from chassis.trust import Access
from chassis.validation import check_range, check_text

KIND_OF = {CA: pb.CERTIFICATE_KIND_CA, CLIENT: pb.CERTIFICATE_KIND_CLIENT}
KINDS: dict[int, str] = {kind: name for name, kind in KIND_OF.items()}
MAX_EXPIRES_WITHIN_S = 10_000 * 7 * 24 * 60 * 60
PAIRS = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})+:?")


class CertificateServicer(certificates_pb2_grpc.CertificateServiceServicer):
    """A new certificate has no effect before a broker uses it."""

    def __init__(self, store: CertificateStore, refresh: Refresh) -> None:
        """`refresh` makes a change that was committed take effect in this process."""
        self._store = store
        self._refresh = refresh

    @allows(Access.OPERATOR)
    async def CreateCertificate(
        self, request: pb.CreateCertificateRequest, context: Context
    ) -> pb.CreateCertificateResponse:
        """Raises `InvalidInput`, `CertificateExists`."""
        given = request.certificate
        row = await self._store.create(read(given, KINDS.get(given.kind, "")))
        [devices] = await self._store.devices_of([row])
        return pb.CreateCertificateResponse(certificate=proto_of(row, devices=devices))

    @allows(Access.VIEWER)
    async def CheckCertificate(
        self, request: pb.CheckCertificateRequest, context: Context
    ) -> pb.CheckCertificateResponse:
        """Raises `InvalidInput`."""
        given = request.certificate
        found = read(given, KINDS.get(given.kind, ""))
        return pb.CheckCertificateResponse(
            certificate=pb.Certificate(
                kind=given.kind,
                name=found.name,
                pem=found.pem,
                has_private_key=found.private_key is not None,
                fingerprint_sha256=found.fingerprint_sha256,
                subject=found.subject,
                issuer=found.issuer,
                not_before=timestamp_of(found.not_before),
                not_after=timestamp_of(found.not_after),
                warnings=warnings(found.kind, found.pem),
                chain=map(_link, chain_of(found.pem)),
            ),
            existing_id=await self._store.id_of(found.kind, found.fingerprint_sha256),
        )

    @allows(Access.VIEWER)
    async def GetCertificate(
        self, request: pb.GetCertificateRequest, context: Context
    ) -> pb.GetCertificateResponse:
        """Raises `CertificateNotFound`."""
        row = await self._store.certificate(request.id)
        [devices] = await self._store.devices_of([row])
        return pb.GetCertificateResponse(certificate=proto_of(row, devices=devices))

    @allows(Access.VIEWER)
    async def ListCertificates(
        self, request: pb.ListCertificatesRequest, context: Context
    ) -> pb.ListCertificatesResponse:
        """Lists certificates without their texts. Raises `InvalidInput`."""
        size = pages.page_size_of(request.page_size)
        kind = KINDS.get(request.kind)
        if request.kind and kind is None:
            raise InvalidInput("must be ca or client", field="kind")
        expires_within = None
        if request.HasField("expires_within_s"):
            check_range("expires_within", request.expires_within_s, 0, MAX_EXPIRES_WITHIN_S)
            expires_within = timedelta(seconds=request.expires_within_s)
        check_text("text", request.text, longest=MAX_NAME)
        wanted = Wanted(
            kind=kind,
            expires_within=expires_within,
            is_used=request.is_used if request.HasField("is_used") else None,
            text=request.text,
        )
        match request.order:
            case pb.CERTIFICATE_ORDER_UNSPECIFIED:
                search = _without_colons(request.search)
                start = start_of(search, request.cursor, int, largest=MAX_INT32)
                rows = await self._store.certificates_from(start, size + 1, wanted)
                page, next_cursor = pages.cut(
                    rows, size, lambda row: start.place_of(row["rank"], row["id"])
                )
            case pb.CERTIFICATE_ORDER_NOT_AFTER if request.search:
                raise InvalidInput("must be id in a search: the best match is first", field="order")
            case pb.CERTIFICATE_ORDER_NOT_AFTER:
                last = _expiry_in(pages.after(request.cursor, str))
                rows = await self._store.expiring_after(last, size + 1, wanted)
                page, next_cursor = pages.cut(rows, size, _expiry_text)
            case _:
                raise InvalidInput("must be id or not_after", field="order")
        counts = await self._store.devices_of(page)
        return pb.ListCertificatesResponse(
            certificates=[
                proto_of(row, is_listed=True, devices=devices)
                for row, devices in zip(page, counts, strict=True)
            ],
            next_cursor=next_cursor,
        )

    @allows(Access.OPERATOR)
    async def RenameCertificate(
        self, request: pb.RenameCertificateRequest, context: Context
    ) -> pb.RenameCertificateResponse:
        """Raises `InvalidInput`, `CertificateNotFound`, `LostRace`."""
        check_text("name", request.name, shortest=1, longest=MAX_NAME)
        row = await self._store.rename(request.id, request.name, request.if_revision)
        await self._refresh()
        [devices] = await self._store.devices_of([row])
        return pb.RenameCertificateResponse(certificate=proto_of(row, devices=devices))

    @allows(Access.OPERATOR)
    async def DeleteCertificate(
        self, request: pb.DeleteCertificateRequest, context: Context
    ) -> pb.DeleteCertificateResponse:
        """Raises `CertificateNotFound`, `LostRace`, `CertificateInUse`."""
        await self._store.delete(request.id, request.if_revision)
        return pb.DeleteCertificateResponse()


def _without_colons(search: str) -> str:
    """A fingerprint as it is stored. Many tools write it in pairs of digits."""
    return search.replace(":", "") if PAIRS.fullmatch(search) else search


def read(given: pb.NewCertificate, kind: str, *, field: str = "") -> Certificate:
    """The certificate to store, from `field` of the request. Raises `InvalidInput`."""
    inside = f"{field}." if field else ""
    name = given.name if given.HasField("name") else None
    if name is not None:
        check_text(f"{inside}name", name, shortest=1, longest=MAX_NAME)
    private_key = given.private_key if given.HasField("private_key") else None
    try:
        if kind == CLIENT:
            return read_client(given.pem, private_key, name=name)
        if kind != CA:
            raise InvalidInput("must be ca or client", field="kind")
        if private_key is not None:
            raise InvalidInput("a CA's private key must not leave its owner", field="private_key")
        return read_ca(given.pem, name=name)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=f"{inside}{error.field}") from None


def _expiry_text(row: Mapping[Any, Any]) -> str:
    """The place of a row in the order of expiry, for a cursor."""
    return f"{row['not_after'].astimezone(UTC).isoformat()} {row['id']}"


def _expiry_in(text: str | None) -> tuple[datetime, int] | None:
    """Reads what `_expiry_text` makes. Raises `InvalidInput`."""
    if text is None:
        return None
    moment, _, digits = text.partition(" ")
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        found = None
    is_id = digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_INT32))
    if found is None or found.tzinfo != UTC or not is_id or int(digits) > MAX_INT32:
        raise InvalidInput("this cursor is invalid", field="cursor")
    return found, int(digits)


def proto_of(
    row: Mapping[Any, Any], *, is_listed: bool = False, devices: int | None = None
) -> pb.Certificate:
    """The message for a row, without secrets."""
    return pb.Certificate(
        id=row["id"],
        kind=KIND_OF[row["kind"]],
        name=row["name"],
        pem="" if is_listed else row["pem"],
        has_private_key=row["has_private_key"],
        fingerprint_sha256=row["fingerprint_sha256"],
        subject=row["subject"],
        issuer=row["issuer"],
        not_before=timestamp_of(row["not_before"]),
        not_after=timestamp_of(row["not_after"]),
        created_at=timestamp_of(row["created_at"]),
        broker_ids=row["broker_ids"],
        replacement_id=row["replacement_id"],
        warnings=warnings(row["kind"], row["pem"]),
        chain=[] if is_listed else map(_link, chain_of(row["pem"])),
        devices=devices,
        revision=revision_of(row),
    )


def _link(link: ChainLink) -> pb.ChainLink:
    return pb.ChainLink(
        subject=link.subject,
        issuer=link.issuer,
        serial_number=link.serial_number,
        fingerprint_sha256=link.fingerprint_sha256,
        not_before=timestamp_of(link.not_before),
        not_after=timestamp_of(link.not_after),
        public_key=link.public_key,
    )


def warnings(kind: str, pem: str, *, host: str | None = None) -> list[pb.CertificateWarning]:
    """Why clients cannot verify with the certificate now. `host` is the host of a broker that uses
    it.
    """
    return [
        pb.CertificateWarning(reason=problem.reason, detail=problem.detail)
        for problem in warnings_of(kind, pem, datetime.now(UTC), host=host)
    ]
