"""A lease that a sandbox has with its forks.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from sublet.sdk._async.client import AsyncClient
from sublet.sdk._async.leases import AsyncLease


class AsyncHold:
    """Ends the lease when the last of those who share it has left."""

    def __init__(self, lease: AsyncLease) -> None:
        self._lease, self._count = lease, 1

    @classmethod
    async def open(cls, client: AsyncClient) -> AsyncHold:
        """A lease of one's own."""
        return cls(await client.lease().open())

    @property
    def id(self) -> str:
        return self._lease.id

    def shared(self) -> AsyncHold:
        """One more has it."""
        self._count += 1
        return self

    async def leave(self) -> None:
        """One less has it."""
        self._count -= 1
        if not self._count:
            await self._lease.close()
