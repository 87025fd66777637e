"""TLS of gRPC servers and clients. Certificates, keys and CAs can be replaced while they run."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from chassis.reloaded import Reloaded


@dataclass(frozen=True, slots=True, eq=False)
class _Files:
    """The contents of the three files, as PEM, and the credentials of a client that uses them."""

    certificate: bytes
    key: bytes
    ca: bytes
    client: grpc.ChannelCredentials


class ReloadedTls:
    """A service's certificate, its key, and the CAs with which it verifies its peers.

    The files are read again when one of them changes. Files that do not match, for example during a
    replacement, are ignored.
    """

    def __init__(self, cert_file: Path, key_file: Path, ca_file: Path) -> None:
        """Reads the files. Raises `OSError`, of which `ssl.SSLError` is a subclass."""
        self._files = Reloaded(
            cert_file, lambda _: _read(cert_file, key_file, ca_file), key_file, ca_file
        )
        self._served = self._files.value

    def client(self) -> grpc.ChannelCredentials:
        """The credentials for a channel; the same object until the files change."""
        return self._files.value.client

    def server(self) -> grpc.ServerCredentials:
        """The credentials for the port of a server. Open connections stay when the files change."""
        # If this returns None, gRPC keeps its configuration; the type stubs do not say so.
        changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._served), changed, require_client_authentication=True
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """GRPC calls this before each handshake, in another thread."""
        files = self._files.value
        if files is self._served:
            return None
        self._served = files
        return _configuration(files)


def _configuration(files: _Files) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], files.ca)


def _read(cert_file: Path, key_file: Path, ca_file: Path) -> _Files:
    certificate, key, ca = (file.read_bytes() for file in (cert_file, key_file, ca_file))
    # gRPC would accept the key of another certificate, and then every handshake would fail.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    # Comments in a bundle may hold any characters, but OpenSSL accepts only ASCII.
    context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    return _Files(certificate, key, ca, grpc.ssl_channel_credentials(ca, key, certificate))
