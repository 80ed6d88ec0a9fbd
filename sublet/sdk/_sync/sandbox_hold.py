# Made from ../_async/sandbox_hold.py by scripts/unasync.py; edit that file.
"""A lease that a sandbox has with its forks.
"""

from __future__ import annotations

from sublet.sdk._sync.client import Client
from sublet.sdk._sync.leases import Lease


class Hold:
    """Ends the lease when the last of those who share it has left."""

    def __init__(self, lease: Lease) -> None:
        self._lease, self._count = lease, 1

    @classmethod
    def open(cls, client: Client) -> Hold:
        """A lease of one's own."""
        return cls(client.lease().open())

    @property
    def id(self) -> str:
        return self._lease.id

    def shared(self) -> Hold:
        """One more has it."""
        self._count += 1
        return self

    def leave(self) -> None:
        """One less has it."""
        self._count -= 1
        if not self._count:
            self._lease.close()
