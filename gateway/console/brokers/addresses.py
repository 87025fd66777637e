"""Where brokers reach this installation, for the settings that the pages show."""

from urllib.parse import urlsplit

from gateway.console.changes import own_address
from gateway.console.visitor import ConsoleRequest
from gateway.context import context_of

# The port of `registry_service.access`, unless ACCESS_URL says where it is.
ACCESS_PORT = 4003


def access_address_of(request: ConsoleRequest) -> str:
    """The URL at which brokers ask about clients: ACCESS_URL, or the gateway's host with the
    default port.
    """
    if configured := context_of(request).access_url:
        return configured
    own = urlsplit(own_address(request))
    host = own.hostname or "localhost"
    return f"{own.scheme}://{f'[{host}]' if ':' in host else host}:{ACCESS_PORT}"
