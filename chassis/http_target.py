"""Converts targets of requests to one normal form, which all routers use.

A target is a path, a whole URL, of which only the path is used, or `*` (RFC 9112, section 3.2). The
path is normalised according to RFC 3986, section 6.2.2, and decoded: `%74` and `t` are the same
letter. An encoded slash stays `%2F`, because it does not separate segments. Dot segments and empty
segments are not removed, and no route has such a path (`/a/../b`, `/a//b`, `/a/`).
"""

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

# http://user@host:1/path?query; the scheme in either case.
ABSOLUTE = re.compile(rb"https?://[^/?#]+(?P<rest>[/?].*)?", re.IGNORECASE | re.DOTALL)
ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
NOT_ENCODING = re.compile(rb"%(?![0-9A-Fa-f]{2})")
DOTS = frozenset({b".", b".."})


class BadTarget(ValueError):
    """The target is malformed, or does not belong to this server."""


class Target(NamedTuple):
    """The path in its normal form, and the query unchanged."""

    path: bytes
    query: bytes

    @property
    def is_nowhere(self) -> bool:
        """Whether the path has a segment that no route has: an empty segment or a dot segment."""
        path = self.path
        if b"//" not in path and b"/." not in path and not path.endswith(b"/"):
            return False
        return path != b"/" and any(not one or one in DOTS for one in path.split(b"/")[1:])


def target_of(sent: bytes) -> Target:
    """Reads the target of a request line. Raises `BadTarget`."""
    if not sent.startswith(b"/"):
        if sent == b"*":
            return Target(sent, b"")
        found = ABSOLUTE.fullmatch(sent)
        if found is None:
            raise BadTarget("neither a path nor a URL")
        sent = found["rest"] or b"/"
        if sent.startswith(b"?"):
            sent = b"/" + sent
    if b"#" in sent:
        raise BadTarget("a target has no fragment")
    if b"?" not in sent and b"%" not in sent:
        return Target(sent, b"")
    path, _, query = sent.partition(b"?")
    if b"%" in path:
        if NOT_ENCODING.search(path):
            raise BadTarget("a percent sign that begins no encoding")
        path = b"%2F".join(unquote_to_bytes(part) for part in ENCODED_SLASH.split(path))
    return Target(path, query)
