"""Whether a request comes from a page of this console, decided from its headers.

A cookie does not prove that. Other ports of the same host are the same site, so that they get the
cookie too, and `SameSite=Lax` lets their forms through.
"""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from chassis.config import is_loopback
from chassis.errors import Forbidden

SAFE_METHODS = frozenset({"GET", "HEAD"})


class ForeignOrigin(Forbidden):
    """The request comes from a page of another origin, or is for another host."""

    reason = "FOREIGN_ORIGIN"


class FormExpired(Forbidden):
    """The form was made in another session."""

    reason = "FORM_EXPIRED"


def require_own_host(scheme: str, host: str, public_url: str) -> None:
    """Raises `ForeignOrigin` if the `Host` header names another host.

    Another host's name may lead to this machine (DNS rebinding). Under TLS the certificate prevents
    that. `public_url` may be empty; then only loopback is reached without TLS.
    """
    if scheme == "https" or (public_url and host == urlsplit(public_url).netloc):
        return
    if not is_loopback(_name_of(host)):
        raise ForeignOrigin("the console is not at this host: configure PUBLIC_URL")


def _name_of(host: str) -> str:
    """A `Host` without its port; empty if it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def require_own_page(headers: Mapping[str, str], scheme: str, public_url: str) -> None:
    """Raises `ForeignOrigin` unless the request was made by a page of this origin.

    Browsers send `Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/); for those that do not,
    the `Origin` has to be this one.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site != "same-origin":
            raise ForeignOrigin("this was sent by a page of another site")
        return
    own = {f"{scheme}://{headers.get('host', '')}", public_url.rstrip("/")}
    if headers.get("origin", "") not in own - {""}:
        raise ForeignOrigin("this was sent by a page of another site")


def form_token_of(session_secret: str) -> str:
    """The token that every form of a session contains. It does not reveal the secret."""
    return hmac.new(session_secret.encode(), b"mooring form", hashlib.sha256).hexdigest()


def require_form_token(given: str, session_secret: str) -> None:
    """Raises `FormExpired` if a form does not contain the token of its session."""
    if not hmac.compare_digest(given.encode(), form_token_of(session_secret).encode()):
        raise FormExpired("this form was made in another session: load the page again")
