"""Header fields of a request: credentials, forwarded addresses and entity tags."""

from contextlib import suppress
from ipaddress import ip_address

from chassis.addresses import host_of
from chassis.bearer import MAX_SECRET_BYTES, bearer
from chassis.errors import Unauthenticated
from gateway.addresses import client_of, networks_of
from gateway.conditional import expected_revisions, is_current, revision_tag
from gateway.device_handler import request_id_of
from registry_service.provisioning.guesses import network_of
from tests.fuzz.given import chosen

NAMES = (b"authorization", b"x-forwarded-for", b"if-match", b"x-request-id", b"networks")
TRUSTED = networks_of("127.0.0.0/8, ::1, 10.0.0.0/8")
PEER = ("127.0.0.1", 1)
SEEDS = (
    *(b"\0Bearer mrt_abc", b"\0bearer   x ", b"\0Basic x\nBearer y", b"\0Bearer \xff"),
    *(b"\1 192.0.2.1:4711, [2001:db8::1]:1, 10.0.0.1", b"\1::ffff:10.0.0.1\n unknown,10.0.0.2"),
    *(b'\2W/"1", "2"', b"\2*", b'\2"999999999999999999"\n"a"', b"\3a.b-c_d", b"\3\xb2"),
    *(b"\4 10.0.0.0/8 ,::/0", b"\x0410.0.0.1/8", b"\4fe80::1%1", b"\1fe80::1%eth0", b"\1[::1"),
)
WORDS = (
    b"Bearer ",
    b"::ffff:",
    b",",
    b"[",
    b"]:",
    b"%",
    b'W/"',
    b'"',
    b"*",
    b"\xb2",
    b"/32",
    b"\n",
)


def attempt(data: bytes) -> None:
    name, rest = chosen(data, NAMES)
    values = rest.split(b"\n")
    headers = [(name, value) for value in values]
    request_id_of(headers).decode("ascii")
    with suppress(Unauthenticated):
        secret = bearer(headers)
        assert 0 < len(secret) <= MAX_SECRET_BYTES
        assert secret.isascii()
        assert len(values) == 1
    client = client_of(PEER, headers, TRUSTED)
    assert client is not None
    # The address is used to count requests, and is stored in the database.
    assert str(ip_address(client[0])) == client[0]
    assert host_of(client[0])
    network_of(client[0])
    assert client_of(("192.0.2.9", 1), headers, TRUSTED) == ("192.0.2.9", 1)
    texts = [value.decode("latin-1") for value in values]
    revisions = expected_revisions(texts)
    assert all(0 <= revision < 10**18 for revision in revisions)
    assert is_current([revision_tag(7)], revision_tag(7))
    is_current(texts, revision_tag(7))
    with suppress(ValueError):
        assert all(network.num_addresses for network in networks_of(texts[0]))
