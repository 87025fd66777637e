"""A gRPC channel that is rebuilt when its TLS files change, without failing a call."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc
import structlog

from chassis.reloaded import LOOK_EVERY_S

log = structlog.get_logger(__name__)

# The servers may get their new files later than this client. So the old channel, if it is
# connected, is used until a server accepts the new connection, but no longer than this: a CA that
# was removed must not stay trusted.
CONNECT_WITHIN_S = 60.0
POLL_S = 0.05
# The old channel is closed after this time, which is longer than any call may take.
CLOSE_AFTER_S = 150.0


class ReloadedChannel(grpc.aio.Channel):
    """A channel on which stubs are made once. Each new call uses the newest credentials."""

    def __init__(
        self,
        address: str,
        credentials: Callable[[], grpc.ChannelCredentials],
        options: list[tuple[str, Any]],
    ) -> None:
        """`credentials` returns the same object until they change. Needs a running loop."""
        self._address = address
        self._credentials = credentials
        self._options = options
        self._used = credentials()
        self.current: grpc.aio.Channel = self._open()
        # Replaced channels, and the time of the loop's clock at which each is closed.
        self._replaced: list[tuple[float, grpc.aio.Channel]] = []
        self._loop = asyncio.get_running_loop()
        self._following = self._loop.create_task(self._follow())

    def _open(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(self._address, self._used, self._options)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            while self._replaced and self._replaced[0][0] <= self._loop.time():
                await self._replaced.pop(0)[1].close()
            found = self._credentials()
            if found is not self._used:
                self._used = found
                await self._replace(self._open())

    async def _replace(self, new: grpc.aio.Channel) -> None:
        """Connects `new`, then uses it for all further calls."""
        ready = grpc.ChannelConnectivity.READY
        until = self._loop.time() + CONNECT_WITHIN_S
        old = self.current
        try:
            while (  # noqa: ASYNC110 - gRPC has no event for all of these
                new.get_state(try_to_connect=True) != ready
                and old.get_state() == ready
                and self._loop.time() < until
                and self._credentials() is self._used
            ):
                await asyncio.sleep(POLL_S)
        except asyncio.CancelledError:
            await new.close()
            raise
        if self._credentials() is not self._used:
            await new.close()
            return
        self.current = new
        self._replaced.append((self._loop.time() + CLOSE_AFTER_S, old))
        log.info(
            "calls use the changed certificate",
            address=self._address,
            is_connected=new.get_state() == ready,
        )

    def unary_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        """As in any channel."""
        return _Method(self, lambda channel: channel.unary_unary(method, *arguments, **named))

    def unary_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        """As in any channel."""
        return _Method(self, lambda channel: channel.unary_stream(method, *arguments, **named))

    def stream_unary(self, method: str, *arguments: Any, **named: Any) -> Any:
        """As in any channel."""
        return _Method(self, lambda channel: channel.stream_unary(method, *arguments, **named))

    def stream_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        """As in any channel."""
        return _Method(self, lambda channel: channel.stream_stream(method, *arguments, **named))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of the channel that new calls use."""
        return self.current.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits for a change of the channel that new calls use now."""
        await self.current.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the channel that new calls use now is connected."""
        await self.current.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Closes all channels; calls under way are cancelled, after `grace` seconds if given."""
        self._following.cancel()
        await asyncio.wait([self._following])
        for channel in (self.current, *(old for _, old in self._replaced)):
            await channel.close(grace)

    async def __aenter__(self) -> "ReloadedChannel":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


class _Method:
    """A method of a stub. It is made again if the channel was replaced since the last call."""

    __slots__ = ("_call", "_channel", "_make", "_owner")

    def __init__(self, owner: ReloadedChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._owner = owner
        self._make = make
        self._channel = owner.current
        self._call = make(self._channel)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._channel is not self._owner.current:
            self._channel = self._owner.current
            self._call = self._make(self._channel)
        return self._call(*arguments, **named)
