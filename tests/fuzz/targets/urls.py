"""Targets of requests: one normal form, however a client writes the target."""

from urllib.parse import quote, quote_from_bytes

from chassis.direct_http import Head
from chassis.http_target import BadTarget, target_of
from gateway.device_routes import DeviceRoutes

ROUTES = DeviceRoutes(None, None)  # type: ignore[arg-type]  # nothing is asked
SEEDS = (
    *(b"/api/v1/device/a/mqtt", b"/api/v1/device/%61/mqtt?x=%20#", b"/a%2Fb%2f%25", b"*", b"/%"),
    *(b"http://h:1/a?b", b"HTTPS://u@h", b"https://h?x", b"//h/a", b"/a/../b/./", b"/a//b/", b""),
    *(b"/api/v1/device/a%2Fb/mqtt", b"/api/v1/device/register", b"/%C3%A4%00", b"/a%252Fb"),
    *(b"/api/v1/device/-/credentials/rotate", b"/api/v1/device/-/mqtt/report"),
)
WORDS = (b"%2F", b"%2f", b"%25", b"%2E", b"..", b"/./", b"//", b"http://", b"?", b"#", b"*", b"%0")


def attempt(data: bytes) -> None:
    try:
        found = target_of(data)
    except BadTarget:
        return
    if found.path == b"*":
        return
    assert found.path.startswith(b"/")
    if b"%25" in data:
        # The normal form keeps an encoded slash, and here also an encoded percent sign.
        return
    # Encoding every octet, or only those that must be, gives the same (RFC 3986, section 6.2.2).
    kept = found.path.split(b"%2F")
    separated = [part.split(b"/") for part in kept]
    all_encoded = b"%2F".join(
        b"/".join(b"".join(b"%%%02x" % byte for byte in one) for one in part) for part in separated
    )
    least = b"%2f".join(quote_from_bytes(part).encode() for part in kept)
    for other in (all_encoded, least, b"http://h:80" + least, least + b"?" + found.query):
        again = target_of(other)
        assert again.path == found.path
        assert again.is_nowhere == found.is_nowhere
    head = Head(b"GET", found.path, found.query, [], None)
    handler = ROUTES.find(head)
    if handler is not None:
        assert not found.is_nowhere
        assert quote(found.path.decode("ascii")).encode() == found.path
