# Made from ../_async/leases.py by scripts/unasync.py; edit that file.
"""Leases: instances that are gone when their client is, however it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from sublet.domain.errors import DaemonUnavailable, LeaseEnded, SubletError
from sublet.sdk import _launch
from sublet.sdk._sync import threads, wire

_LOOK = 0.25
"""Seconds between looks at whether a daemon is there again."""

_DEADLINE = 120.0
"""Seconds that the deletion of all instances may take."""


class Lease:
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

    def __enter__(self) -> Lease:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Lease:
        """Begin it."""
        from sublet.sdk._forks import keep_from_children  # here: `run` has no use for it

        self._session = self._take_up(self._path)
        self._keeper = threads.Background("sublet lease", self._keep)
        keep_from_children(self)
        return self

    def close(self) -> None:
        """End it; returns when its instances are gone. Raises what kept one from that."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError, ValueError):  # `_return` has closed it, and says so itself
            self._session.say(type="release")
        if not self._keeper.ended(_DEADLINE):
            raise DaemonUnavailable(
                f"The lease's instances are not gone after {_DEADLINE:g} s.",
                hint="The daemon's log says more; they go with this process at the latest.",
            )
        self._session.close()
        if self._failure:
            raise self._failure

    def fileno(self) -> int:
        """The number of the connection's socket, -1 once it is closed."""
        return self._session.connection.fileno()

    def _take_up(self, path: str) -> wire.Session:
        """A connection that holds the lease, a new one or the one that was had."""
        request = {"lease": self.id} if self.id else {}
        session = wire.Session.open("/v1/lease", request, path=path)
        try:
            message = session.receive()
            assert isinstance(message, dict)
            self.id = message["id"]
        except BaseException:
            session.close()
            raise
        return session

    def _keep(self) -> None:
        """Wait for the end, whatever becomes of the daemon meanwhile."""
        try:
            while not self._over():
                self._return()
        except SubletError as error:
            if not self._closing:
                self.lost = error
                self._told(error)
            elif not isinstance(error, LeaseEnded):
                self._failure = error

    def _over(self) -> bool:
        """Whether the lease was released, when the connection ends or that is told."""
        try:
            self._session.receive()
        except DaemonUnavailable:
            return False
        return True

    def _return(self) -> None:
        """Take the lease up again with the next daemon, which whoever needs one starts: the end
        of the lease does."""
        self._session.close()
        while True:
            path = self._path or ("" if self._closing else _launch.socket_path())
            try:
                self._session = self._take_up(path)
                break
            except DaemonUnavailable:
                if self._closing:
                    raise
                threads.pause(_LOOK)
        if self._closing:
            self._session.say(type="release")
