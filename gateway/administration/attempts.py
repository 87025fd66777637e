"""Guessing API tokens: how often somebody may be wrong, and how the others get in meanwhile.

A token that is not known to be good takes one from the allowance of its address, and of its prefix,
before the registry is asked, and gives it back if it is good after all. Where nothing is left it is
refused here. One that is known to be good
is not counted, whatever else comes from its address. Which ones those are the registry says, once a
second at most, and only while others are shown: that is all that a flood costs the registry.
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
# An answer that takes longer is not waited for.
LOOK_S = 2.0


class Attempts:
    """What this process knows of good tokens, and of those who try others."""

    def __init__(self, services: ServiceClients, limits: Limits | None) -> None:
        """`limits` counts failed attempts, by address and by prefix."""
        self._services = services
        self._limits = limits
        # Fingerprints, as the registry makes them. Not what lets anybody in: the registry does.
        self._good: set[int] = set()
        self._looking = asyncio.Lock()
        self._looked_at = -LOOK_EVERY_S

    async def authenticate(
        self, secret: str, client: tuple[str, int] | None, deadline: float
    ) -> bytes:
        """A ticket for whoever has the token. Raises `RateLimited`, or what the registry raises."""
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
            # Nobody knows whether it was wrong.
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
        # Before the answer is known, or many at once would all be let through.
        self._limits.admit(client, secret[:PREFIX_CHARACTERS])
        return True

    def _forgive(self, secret: str, client: tuple[str, int] | None, *, is_counted: bool) -> None:
        if is_counted and self._limits is not None:
            self._limits.give_back(client, secret[:PREFIX_CHARACTERS])

    async def _look_again(self) -> None:
        """Asks which tokens are good, unless that was just asked."""
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
