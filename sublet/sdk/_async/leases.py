"""Leases: instances that are gone when their client is, however it ended.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sublet.domain.errors import DaemonUnavailable, LeaseEnded, SubletError
from sublet.sdk import _launch
from sublet.sdk._async import threads, wire

_LOOK = 0.25
"""Seconds between looks at whether a daemon is there again."""

_DEADLINE = 120.0
"""Seconds that the deletion of all instances may take."""


class AsyncLease:
    """A lease, as a context manager: instances that are made with its `id` are deleted when it
    is left, or when this process has ended, be it by SIGKILL.

    It is looked after beside whatever else its owner does: where the daemon starts again, the
    lease is taken up again. `lost` tells if that failed, as does `told`, which is called then: its
    instances are gone. A child that this process forks does not hold it.
    """

    def __init__(
        self, socket: str = "", told: Callable[[SubletError], None] = lambda error: None
    ) -> None:
        self.id = ""
        self.lost: SubletError | None = None
        self._path, self._told = socket, told
        self._failure: SubletError | None = None
        self._closing = False

    async def __aenter__(self) -> AsyncLease:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> AsyncLease:
        """Begin it."""
        from sublet.sdk._forks import keep_from_children  # here: `run` has no use for it

        self._session = await self._take_up(self._path)
        self._keeper = threads.Background("sublet lease", self._keep)
        keep_from_children(self)
        return self

    async def close(self) -> None:
        """End it; returns when its instances are gone. Raises what kept one from that."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError, ValueError):  # `_return` has closed it, and says so itself
            await self._session.say(type="release")
        if not await self._keeper.ended(_DEADLINE):
            raise DaemonUnavailable(
                f"The lease's instances are not gone after {_DEADLINE:g} s.",
                hint="The daemon's log says more; they go with this process at the latest.",
            )
        await self._session.close()
        if self._failure:
            raise self._failure

    def fileno(self) -> int:
        """The number of the connection's socket, -1 once it is closed."""
        return self._session.connection.fileno()

    async def _take_up(self, path: str) -> wire.AsyncSession:
        """A connection that holds the lease, a new one or the one that was had."""
        request = {"lease": self.id} if self.id else {}
        session = await wire.AsyncSession.open("/v1/lease", request, path=path)
        try:
            message = await session.receive()
            assert isinstance(message, dict)
            self.id = message["id"]
        except BaseException:
            await session.close()
            raise
        return session

    async def _keep(self) -> None:
        """Wait for the end, whatever becomes of the daemon meanwhile."""
        try:
            while not await self._over():
                await self._return()
        except SubletError as error:
            if not self._closing:
                self.lost = error
                self._told(error)
            elif not isinstance(error, LeaseEnded):
                self._failure = error

    async def _over(self) -> bool:
        """Whether the lease was released, when the connection ends or that is told."""
        try:
            await self._session.receive()
        except DaemonUnavailable:
            return False
        return True

    async def _return(self) -> None:
        """Take the lease up again with the next daemon, which whoever needs one starts: the end
        of the lease does."""
        await self._session.close()
        while True:
            path = self._path or ("" if self._closing else _launch.socket_path())
            try:
                self._session = await self._take_up(path)
                break
            except DaemonUnavailable:
                if self._closing:
                    raise
                await threads.pause(_LOOK)
        if self._closing:
            await self._session.say(type="release")
