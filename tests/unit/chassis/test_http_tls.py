"""A certificate is replaced while its server runs, and no request is lost."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from chassis import reloaded
from tests.http_server import PATIENCE_S, served, statuses

CLOSING = b"GET /direct HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
KEPT = CLOSING.replace(b"Connection: close\r\n", b"")


class Mount:
    """A folder as Kubernetes mounts a secret: its files are links into a folder that is swapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.trust = ssl.create_default_context()
        self.authority.configure_trust(self.trust)
        self._versions = 0
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        self.swap(self.issued())
        for file in (self.cert, self.key):
            file.symlink_to(Path("..data", file.name))

    def issued(self) -> trustme.LeafCert:
        return self.authority.issue_cert("127.0.0.1")

    def swap(self, issued: trustme.LeafCert, *, key: bytes | None = None) -> None:
        """Replaces both files at once."""
        self._versions += 1
        version = self.folder / f"..{self._versions}"
        version.mkdir()
        (version / "tls.crt").write_bytes(issued.cert_chain_pems[0].bytes())
        (version / "tls.key").write_bytes(key or issued.private_key_pem.bytes())
        link = self.folder / "..new"
        link.symlink_to(version.name)
        link.rename(self.folder / "..data")


async def shown(address: tuple[str, int], trust: ssl.SSLContext) -> int:
    """The serial number of the certificate on a connection with an answered request."""
    reader, writer = await asyncio.open_connection(*address, ssl=trust)
    try:
        writer.write(CLOSING)
        assert statuses(await reader.read()) == [200]
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        found = tls.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def until(condition: Callable[[int], bool], address: tuple[str, int], mount: Mount) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition(await shown(address, mount.trust)):
            pass


async def test_a_new_certificate_is_used_and_no_connection_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloaded, "LOOK_EVERY_S", 0.0)
    mount = Mount(tmp_path)
    async with served(None, mount.cert, mount.key) as address:
        reader, writer = await asyncio.open_connection(*address, ssl=mount.trust)
        before = await shown(address, mount.trust)
        mount.swap(mount.issued())
        await until(lambda serial: serial != before, address, mount)
        after = await shown(address, mount.trust)
        # Half of a replacement, then no key at all: the previous pair stays in use.
        for key in (mount.issued().private_key_pem.bytes(), b"nonsense"):
            mount.swap(mount.issued(), key=key)
            assert await shown(address, mount.trust) == after
        mount.swap(mount.issued())
        await until(lambda serial: serial != after, address, mount)
        # The first connection still works.
        for _ in range(2):
            writer.write(KEPT)
            async with asyncio.timeout(PATIENCE_S):
                assert statuses(await reader.readuntil(b"\r\n\r\n0")) == [200]
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
