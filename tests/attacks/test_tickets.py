"""A caller cannot act for a person with a ticket that the registry did not sign for this call."""

import time
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from mooring.registry.v1 import fleets_pb2, fleets_pb2_grpc, tokens_pb2, tokens_pb2_grpc

from chassis.identities import Identity
from chassis.tickets import LIFETIME_S, SKEW_S, InvalidTicket, SigningKeys, checked
from chassis.trust import Access, Actor
from tests.attacks.test_identities import of, reason_of
from tests.integration.chassis.test_guarded_server import POLICIES
from tests.stack import ADMIN, Stack, ticket_of

LIST_BROKERS = "/mooring.broker.v1.BrokerService/ListBrokers"
LIST_TOKENS = "/mooring.registry.v1.TokenService/ListTokens"
RING = SigningKeys(1, {1: Ed25519PrivateKey.generate()})
LONG_AGO, LONG_TO_COME = time.time() - LIFETIME_S - 2 * SKEW_S, time.time() + 3_600


def repacked(ticket: bytes, **changes: Any) -> bytes:
    """The same signature over other contents; a field that is None is left out."""
    said = msgspec.msgpack.decode(ticket[64:]) | changes
    return ticket[:64] + msgspec.msgpack.encode({k: v for k, v in said.items() if v is not None})


async def outcomes(stack: Stack, ticket: bytes) -> set[str]:
    """The outcomes at both services."""
    shown = stack.metadata() | {"mooring-ticket-bin": ticket}
    return {
        await reason_of(of(stack, method), method, shown) for method in (LIST_BROKERS, LIST_TOKENS)
    }


async def test_only_a_valid_ticket_is_accepted(stack: Stack) -> None:
    good = ticket_of(stack.signing, ADMIN)
    assert await outcomes(stack, good) == {""}
    viewer = ticket_of(stack.signing, Actor("v", Access.VIEWER, "1", frozenset({"demo"})))
    for bad in (
        b"",
        b"\0" * 64,
        good[:-1],
        good + b"\0",
        # Expired, and not yet valid.
        ticket_of(stack.signing, ADMIN, now=LONG_AGO),
        ticket_of(stack.signing, ADMIN, now=LONG_TO_COME),
        # For another gateway.
        ticket_of(stack.signing, ADMIN, audience="gateway-2.example.com"),
        ticket_of(stack.signing, ADMIN, audience=""),
        # With changed contents.
        repacked(viewer, role="admin"),
        repacked(viewer, fleets="all"),
        repacked(viewer, fleets=None),
        repacked(viewer, fleets=["demo", "other"]),
        repacked(viewer, expires_at=int(LONG_TO_COME)),
        # Signed with another key, under the same id and under an unknown one.
        ticket_of(
            SigningKeys(stack.signing.active_id, {stack.signing.active_id: RING.keys[1]}), ADMIN
        ),
        ticket_of(RING, ADMIN),
    ):
        assert await outcomes(stack, bad) == {"TICKET_INVALID"}, bad


async def test_a_ticket_cannot_be_used_by_another_service(stack: Stack) -> None:
    for method in POLICIES:
        for caller in (Identity.REGISTRY, Identity.RESOLVER, Identity.ENFORCEMENT):
            ticket = ticket_of(stack.signing, ADMIN, audience=caller)
            shown = stack.metadata(None, caller) | {"mooring-ticket-bin": ticket}
            found = await reason_of(of(stack, method), method, shown)
            assert found in ("", "UNTRUSTED_SERVICE")
            if method in (LIST_BROKERS, LIST_TOKENS):
                assert found == "UNTRUSTED_SERVICE"


def test_a_ticket_without_fleets_has_none() -> None:
    said = {
        "key_id": 1,
        "audience": "gateway",
        "actor": "a",
        "actor_id": "1",
        "role": "operator",
        "issued_at": 1_000,
        "expires_at": 1_060,
    }
    payload = msgspec.msgpack.encode(said)
    ticket = RING.keys[1].sign(b"mooring ticket 1\0" + payload) + payload
    assert checked(ticket, RING.public, audience="gateway", now=1_001).fleets == ()


async def test_an_actor_without_fleets_sees_nothing(stack: Stack) -> None:
    actor = Actor("n", Access.OPERATOR, "1", frozenset())
    answer = await stack.admin("GET", "/fleets")
    assert answer.json()["items"]
    found = await stack.registry.ask(
        fleets_pb2_grpc.FleetServiceStub,
        "ListFleets",
        fleets_pb2.ListFleetsRequest(),
        actor=actor,
    )
    assert list(found.fleets) == []


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_ticket_with_any_bit_changed_is_refused(data: st.DataObject) -> None:
    good = ticket_of(RING, Actor("ann", Access.VIEWER, "1", frozenset({"a"})), now=1_000)
    at = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << (at % 8)
    checked(good, RING.public, audience="gateway", now=1_001)
    with pytest.raises(InvalidTicket):
        checked(bytes(bad), RING.public, audience="gateway", now=1_001)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_bytes_that_are_not_a_ticket_are_refused(data: bytes) -> None:
    signed = RING.keys[1].sign(b"mooring ticket 1\0" + data) + data
    for shown in (data, signed):
        with pytest.raises(InvalidTicket):
            checked(shown, RING.public, audience="gateway", now=1_001)


async def test_a_revoked_token_gets_no_ticket(stack: Stack) -> None:
    create = tokens_pb2.CreateTokenRequest(name="gone", role=tokens_pb2.ROLE_ADMIN)
    made = await stack.registry.tokens("CreateToken", create)
    headers = {"Authorization": f"Bearer {made.secret}"}
    assert (await stack.http.get("/api/v1/brokers", headers=headers)).status_code == 200
    await stack.registry.tokens("RevokeToken", tokens_pb2.RevokeTokenRequest(id=made.token.id))
    assert (await stack.http.get("/api/v1/brokers", headers=headers)).status_code == 401


async def test_only_the_gateway_authenticates_people(stack: Stack) -> None:
    request = tokens_pb2.AuthenticateTokenRequest(secret=stack.admin_token)
    answer = await stack.registry.tokens("AuthenticateToken", request)
    found = checked(answer.ticket, stack.signing.public, audience="gateway")
    assert (found.actor, found.role, found.fleets) == ("tests", "admin", "all")
    assert found.expires_at - found.issued_at == LIFETIME_S
    stub = tokens_pb2_grpc.TokenServiceStub
    second = await stack.registry.ask(stub, "AuthenticateToken", request, actor=None)
    assert second.ticket
