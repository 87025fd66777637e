"""Limits failed attempts with API tokens, and admits clients with valid tokens meanwhile.

A token that is not known to be valid takes one attempt from the allowance of its address and of its
prefix before the gateway calls the registry. If the token is valid, the attempt is given back. If
the allowance is used up, the gateway refuses the token itself. A token that is known to be valid is
not counted, whatever other clients send from its address. The gateway gets the list of valid tokens
from the registry, once a second at most, and only while unknown tokens are sent: so a flood of
attempts costs the registry no more than that.
"""

import asyncio
import contextlib
from hashlib import sha256

from mooring.registry.v1 import tokens_pb2

from chassis.errors import MooringError, Unauthenticated
from domain.tokens import PREFIX_CHARACTERS, fingerprint_of
from gateway.limits import Limits, RateLimited
from gateway.service_clients import ServiceClients

LOOK_EVERY_S = 1.0
# The deadline for the list of valid tokens.
LOOK_S = 2.0


class Attempts:
    """The valid tokens that this process knows, and the counts of failed attempts."""

    def __init__(self, services: ServiceClients, limits: Limits | None) -> None:
        """`limits` counts failed attempts, by address and by prefix."""
        self._services = services
        self._limits = limits
        # Fingerprints, as the registry makes them. They admit no client: the registry checks each
        # token.
        self._good: set[int] = set()
        self._looking = asyncio.Lock()
        self._looked_at = -LOOK_EVERY_S

    async def authenticate(
        self, secret: str, client: tuple[str, int] | None, deadline: float
    ) -> bytes:
        """A ticket for the token's owner. Raises `RateLimited`, or what the registry raises."""
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
            self._good.discard(fingerprint)
            if not is_counted and self._limits is not None:
                with contextlib.suppress(RateLimited):
                    self._limits.admit(client, secret[:PREFIX_CHARACTERS])
            raise
        except MooringError:
            # The token may be valid, so the attempt is not counted.
            self._forgive(secret, client, is_counted=is_counted)
            raise
        self._forgive(secret, client, is_counted=is_counted)
        self._good.add(fingerprint)
        return answer.ticket

    async def _admit(self, fingerprint: int, secret: str, client: tuple[str, int] | None) -> bool:
        """Whether the attempt was counted. Raises `RateLimited`."""
        if self._limits is None or fingerprint in self._good:
            return False
        await self._look_again()
        if fingerprint in self._good:
            return False
        # Counted before the answer is known: else many concurrent attempts would all pass.
        self._limits.admit(client, secret[:PREFIX_CHARACTERS])
        return True

    def _forgive(self, secret: str, client: tuple[str, int] | None, *, is_counted: bool) -> None:
        if is_counted and self._limits is not None:
            self._limits.give_back(client, secret[:PREFIX_CHARACTERS])

    async def _look_again(self) -> None:
        """Gets the list of valid tokens, unless the list is less than a second old."""
        loop = asyncio.get_running_loop()
        async with self._looking:
            if loop.time() - self._looked_at < LOOK_EVERY_S:
                return
            with contextlib.suppress(MooringError):
                answer = await self._services.registry.call(
                    self._services.tokens.ListFingerprints,
                    tokens_pb2.ListFingerprintsRequest(),
                    deadline=loop.time() + LOOK_S,
                )
                self._good = set(answer.fingerprints)
            self._looked_at = loop.time()
