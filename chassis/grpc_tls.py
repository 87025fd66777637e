"""TLS of a gRPC server: its certificate and its CAs are exchanged while it runs."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import structlog

from chassis.reloaded import LOOK_EVERY_S, stamp_of

log = structlog.get_logger(__name__)


class ReloadedServerTls:
    """What callers are shown and by which CAs they are known, read again when a file changes.

    Connections that are open go on. Files that do not belong together, as in the middle of an
    exchange, change nothing.
    """

    def __init__(self, cert_file: Path, key_file: Path, ca_file: Path) -> None:
        """Raises `OSError`, of which `ssl.SSLError` is one."""
        self._files = (cert_file, key_file, ca_file)
        self._stamps = self._stamps_now()
        self._looked_at = time.monotonic()

    def credentials(self) -> grpc.ServerCredentials:
        """For the port of a server. Raises `OSError`."""
        # None changes nothing, though the stubs do not know it.
        changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)
        return grpc.dynamic_ssl_server_credentials(
            self._read(), changed, require_client_authentication=True
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake, in a thread of its own; None changes nothing."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return None
        self._looked_at = now
        stamps = self._stamps_now()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        try:
            found = self._read()
        except OSError as error:  # ssl.SSLError is one
            log.warning(
                "a changed certificate cannot be used, so the one before stays",
                file=str(self._files[0]),
                why=str(error),
            )
            return None
        log.info("a changed certificate is in use", file=str(self._files[0]))
        return found

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, ca = (file.read_bytes() for file in self._files)
        # gRPC takes what does not match, and then refuses every caller.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files[:2])
        context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)

    def _stamps_now(self) -> list[tuple[int, ...]]:
        return [stamp_of(file) for file in self._files]
