"""Limits failed attempts with API tokens, and admits clients with valid tokens meanwhile.

A token that is not known to be valid takes one attempt from the allowance of its address and of its
prefix before the gateway calls the registry. If the token is valid, the attempt is given back. If
the allowance is used up, the gateway refuses the token itself. A token that is known to be valid is
not counted, regardless of what other clients send from its address. The gateway gets the list of
valid tokens from the registry at most once a second, and only while unknown tokens are sent. So
very many attempts cost the registry no more than that.
"""

import asyncio
import contextlib
from hashlib import sha256

from mooring.registry.v1 import tokens_pb2

from chassis.errors import MooringError, Unauthenticated
from domain.tokens import PREFIX_CHARACTERS, fingerprint_of
from gateway.limits import Limits, RateLimited
from gateway.service_clients import ServiceClients

REFRESH_EVERY_S = 1.0
# The deadline for the list of valid tokens.
REFRESH_S = 2.0


class Attempts:
    """The valid tokens that this process knows, and the counts of failed attempts."""

    def __init__(self, services: ServiceClients, limits: Limits | None) -> None:
        """`limits` counts failed attempts, by address and by prefix."""
        self._services = services
        self._limits = limits
        # The fingerprints of valid tokens. They only decide what is counted; the registry checks
        # each token.
        self._valid: set[int] = set()
        self._refreshing = asyncio.Lock()
        self._refreshed_at = -REFRESH_EVERY_S

    async def authenticate(
        self, secret: str, client: tuple[str, int] | None, deadline: float
    ) -> bytes:
        """A ticket for the token's owner. Raises `RateLimited`, and the errors of the registry."""
        fingerprint = fingerprint_of(sha256(secret.encode()).digest())
        is_counted = await self._admit(fingerprint, secret, client)
        try:
            answer = await self._services.registry.call(
                self._services.tokens.AuthenticateToken,
                tokens_pb2.AuthenticateTokenRequest(
                    secret=secret, address=client[0] if client else ""
                ),
                deadline=deadline,
            )
        except Unauthenticated:
            self._valid.discard(fingerprint)
            if not is_counted and self._limits is not None:
                with contextlib.suppress(RateLimited):
                    self._limits.admit(client, secret[:PREFIX_CHARACTERS])
            raise
        except MooringError:
            # The token may be valid, so the attempt is not counted.
            self._give_back(secret, client, is_counted=is_counted)
            raise
        self._give_back(secret, client, is_counted=is_counted)
        self._valid.add(fingerprint)
        return answer.ticket

    async def _admit(self, fingerprint: int, secret: str, client: tuple[str, int] | None) -> bool:
        """Counts the attempt unless the token is known to be valid; returns whether it did. Raises
        `RateLimited`.
        """
        if self._limits is None or fingerprint in self._valid:
            return False
        await self._refresh()
        if fingerprint in self._valid:
            return False
        # Count before the answer is known; otherwise many concurrent attempts would all pass.
        self._limits.admit(client, secret[:PREFIX_CHARACTERS])
        return True

    def _give_back(self, secret: str, client: tuple[str, int] | None, *, is_counted: bool) -> None:
        if is_counted and self._limits is not None:
            self._limits.give_back(client, secret[:PREFIX_CHARACTERS])

    async def _refresh(self) -> None:
        """Gets the list of valid tokens, unless the list is less than a second old."""
        loop = asyncio.get_running_loop()
        async with self._refreshing:
            if loop.time() - self._refreshed_at < REFRESH_EVERY_S:
                return
            with contextlib.suppress(MooringError):
                answer = await self._services.registry.call(
                    self._services.tokens.ListFingerprints,
                    tokens_pb2.ListFingerprintsRequest(),
                    deadline=loop.time() + REFRESH_S,
                )
                self._valid = set(answer.fingerprints)
            self._refreshed_at = loop.time()
