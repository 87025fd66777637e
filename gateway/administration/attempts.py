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
from collections.abc import Coroutine
from hashlib import sha256
from typing import Any, TypeVar

from mooring.registry.v1 import sessions_pb2, tokens_pb2

from chassis.errors import MooringError, Unauthenticated
from domain.tokens import PREFIX_CHARACTERS, fingerprint_of
from gateway.limits import Limits, RateLimited
from gateway.service_clients import ServiceClients

Answer = TypeVar("Answer")

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
        asked = self._services.registry.call(
            self._services.tokens.AuthenticateToken,
            tokens_pb2.AuthenticateTokenRequest(secret=secret, address=client[0] if client else ""),
            deadline=deadline,
        )
        return (await self._counted(secret, client, asked)).ticket

    async def session(
        self, secret: str, client: tuple[str, int] | None, deadline: float, *, is_use: bool
    ) -> sessions_pb2.AuthenticateSessionResponse:
        """A valid session of the console, with its token and a ticket. `is_use` is false for
        requests that no person made. Raises `RateLimited`, and the errors of the registry.
        """
        asked = self._services.registry.call(
            self._services.sessions.AuthenticateSession,
            sessions_pb2.AuthenticateSessionRequest(secret=secret, is_use=is_use),
            deadline=deadline,
        )
        return await self._counted(secret, client, asked)

    async def sign_in_code(
        self, code: str, client: tuple[str, int] | None, deadline: float
    ) -> bytes:
        """A ticket for the owner of the token that a sign-in code is for, which is consumed. Raises
        `RateLimited`, and the errors of the registry.
        """
        asked = self._services.registry.call(
            self._services.sessions.AuthenticateSignInCode,
            sessions_pb2.AuthenticateSignInCodeRequest(code=code),
            deadline=deadline,
        )
        return (await self._counted(code, client, asked)).ticket

    async def _counted(
        self, secret: str, client: tuple[str, int] | None, asked: Coroutine[Any, Any, Answer]
    ) -> Answer:
        """The registry's answer to `asked`, which is not sent if too many attempts have failed."""
        fingerprint = fingerprint_of(sha256(secret.encode()).digest())
        try:
            is_counted = await self._admit(fingerprint, secret, client)
        except BaseException:
            asked.close()
            raise
        try:
            answer = await asked
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
        return answer

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
