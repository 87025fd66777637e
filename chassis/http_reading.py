"""Reads the requests of one connection from the bytes that a client sends.

llhttp parses in its strict mode, in which it refuses bare line feeds, folded lines, spaces before
colons and lengths that contradict each other. This module does the rest: it limits the number of
bytes, checks RFC 9112's rules for `Host` and `Transfer-Encoding`, and ignores offers of other
protocols.
"""

import re
from typing import Protocol

import httptools
import structlog

from chassis.direct_http import Head
from chassis.http_limits import HttpLimits
from chassis.http_target import BadTarget, Target, target_of

log = structlog.get_logger(__name__)

# The most bytes that are parsed at once, so that the objects of very many small requests do not
# fill the memory.
SLICE_BYTES = 4096
# RFC 9110, section 7.2: uri-host [":" port]; empty if the target has no authority.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
WATCHED = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
VERSIONS = frozenset({"1.0", "1.1"})


class UnreadableRequest(Exception):
    """The request cannot be read. The answer has `status`, and the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Receiver(Protocol):
    """Takes the parts of each request, in order."""

    # The address and port of the client.
    client: tuple[str, int] | None

    def head_received(self, head: Head, version: str, *, expects: bool) -> None:
        """A head is complete. `expects` says whether the client waits for `100 Continue`."""

    def body_received(self, body: bytes) -> None:
        """A part of the body."""

    def request_received(self) -> None:
        """The body is complete."""


class RequestReader:
    """Parses requests. The parser calls the methods `on_…`."""

    def __init__(self, receiver: Receiver, limits: HttpLimits) -> None:
        """`receiver` is called while `feed` parses."""
        self._receiver = receiver
        self._limits = limits
        self._parser = _parser_for(self)
        # The receiver sets this when no further request is to be read.
        self.is_finished = False
        # The request that is being read.
        self.is_in_head = True
        self.url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        self._last_host: bytes | None = None
        self._has_coding = self._expects_continue = self._is_upgrade = False
        # Bytes of its head before the piece that is being parsed.
        self.head_bytes = 0
        self._heads_read = 0
        # The announced length of its body; None if it is chunked.
        self.length: int | None = 0
        # Bytes of its body that have been read.
        self.body_bytes = 0
        self._framing_bytes = 0

    def is_kept_alive(self) -> bool:
        """Whether the client keeps the connection after the request whose head was just read."""
        return bool(self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0")

    def slice_bytes(self) -> int:
        """How many bytes may be parsed at once."""
        if self.is_in_head or self.length is None or self._is_upgrade:
            return SLICE_BYTES
        # The bytes up to the end of the body, and no more.
        return max(1, self.length - self.body_bytes)

    def feed(self, piece: "bytes | memoryview") -> int:
        """Parses `piece`; returns how many bytes of it were read. Raises `UnreadableRequest`."""
        heads_read, body_bytes = self._heads_read, self.body_bytes
        was_in_head = self.is_in_head
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_upgrade:
                self._read_the_body()
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, UnreadableRequest):
                raise cause from None
            is_ours = isinstance(error, httptools.HttpParserCallbackError)
            if is_ours and not self.is_finished:
                log.exception("a request failed unexpectedly", exc_info=cause or error)
            raise UnreadableRequest(500 if is_ours else 400) from None
        if heads_read != self._heads_read:
            if self.is_in_head and self.url:
                self.head_bytes = self._known_bytes()
        elif was_in_head:
            self.head_bytes += len(piece)
            if self.head_bytes > self._limits.head_bytes:
                raise UnreadableRequest(431)
        elif self.length is None:
            self._framing_bytes += len(piece) - (self.body_bytes - body_bytes)
            if self._framing_bytes > self._limits.framing_bytes + 8 * self.body_bytes:
                raise UnreadableRequest(400)
        if self.is_in_head and self.url and self._parser.get_http_version() == "0.9":
            # An HTTP/0.9 request: it has no head.
            raise UnreadableRequest(400)
        return len(piece)

    def skip(self, piece: "bytes | memoryview") -> bool:
        """Parses the rest of a body whose request has been answered; False if it is malformed."""
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return True

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if self.is_in_head:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. Fields after the body (RFC 9110, section 6.5.1) are ignored."""
        if not self.is_in_head:
            return
        name = name.lower()
        if name in WATCHED:
            self._watch(name, value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head has been read. Raises `UnreadableRequest`."""
        if not self.is_in_head:
            return
        if self.is_finished:
            # This request came after the last one of the connection.
            raise UnreadableRequest(400)
        parser = self._parser
        version, method = parser.get_http_version(), parser.get_method()
        self._require_sense(version, method)
        target = self._target(method)
        self.is_in_head = False
        self._heads_read += 1
        self.body_bytes = self._framing_bytes = 0
        if self._has_coding:
            self.length = None
        self._is_upgrade = parser.should_upgrade() and self.length != 0
        receiver = self._receiver
        receiver.head_received(
            Head(method, target.path, target.query, self._headers, receiver.client),
            version,
            expects=self._expects_continue and version == "1.1",
        )

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body_bytes += len(body)
        self._receiver.body_received(body)

    def on_message_complete(self) -> None:
        """The body has been read."""
        if self._is_upgrade or self.is_in_head:
            # The parser expects the offered protocol after the head.
            return
        self.is_in_head = True
        self.url, self._headers, self._hosts = b"", [], 0
        self._has_coding = self._expects_continue = False
        self.head_bytes = self.length = 0
        self._receiver.request_received()

    # Checks of the head.

    def _watch(self, name: bytes, value: bytes) -> None:
        """Checks a field that determines how to read the request. Raises `UnreadableRequest`."""
        if name == b"host":
            self._hosts += 1
            if value != self._last_host:
                if not HOST.fullmatch(value):
                    raise UnreadableRequest(400)
                self._last_host = value
        elif name == b"content-length":
            # The parser accepts only one length, of digits.
            self.length = int(value)
        elif name == b"transfer-encoding":
            if self._has_coding or value.lower() != b"chunked":
                raise UnreadableRequest(400)
            self._has_coding = True
        elif name == b"expect":
            self._expects_continue = value.lower() == b"100-continue"

    def _require_sense(self, version: str, method: bytes) -> None:
        """Checks RFC 9112's rules for a head besides its grammar. Raises `UnreadableRequest`."""
        if self.head_bytes + SLICE_BYTES > self._limits.head_bytes:
            line_bytes = len(method) + len(" HTTP/1.1\r\n\r\n") + 1
            if self._known_bytes() + line_bytes > self._limits.head_bytes:
                raise UnreadableRequest(431)
        if version not in VERSIONS or self._hosts > 1:
            raise UnreadableRequest(400)
        if version == "1.1" and not self._hosts:  # section 3.2
            raise UnreadableRequest(400)
        if version == "1.0" and self._has_coding:  # section 6.1
            raise UnreadableRequest(400)

    def _target(self, method: bytes) -> Target:
        try:
            target = target_of(self.url)
        except BadTarget:
            raise UnreadableRequest(400) from None
        if target.path == b"*" and method != b"OPTIONS":
            raise UnreadableRequest(400)
        return target

    def _known_bytes(self) -> int:
        """The length of the head, as far as it has been parsed."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _read_the_body(self) -> None:
        """Continues after the head of a request that offers another protocol. The parser stops
        after such a head, so a new parser reads the body.
        """
        self._is_upgrade = False
        self._parser = _parser_for(self)
        framing = (
            b"transfer-encoding: chunked"
            if self.length is None
            else b"content-length: %d" % self.length
        )
        # The new parser gets an artificial head; the request's own head was read before.
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)


def _parser_for(reader: RequestReader) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(reader)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
