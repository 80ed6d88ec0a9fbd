"""Leases: instances that last as long as a client's connection, however that ends.

A lease is held while its connection is open. The kernel closes that of a client that is killed, so
that nothing is left of it. A daemon that starts again gives clients a while to take up theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Iterator

from sublet.domain.errors import LeaseEnded, NoSuchInstance, SubletError
from sublet.domain.instance import Instance
from sublet.engine.instances import Instances

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that a client has, after a start of the daemon, to take up its lease."""

RETRY = 10.0
"""Seconds after which a removal that failed is tried again."""


class Leases:
    """The leases of one daemon."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._parts = instances.parts
        self._held: set[str] = set()
        self._ended: set[str] = set()
        self._recovering = True
        """Leases of the daemon before may be taken up."""
        self._suspended = False
        instances.leased = self.check

    def check(self, lease: str) -> None:
        """Raises LeaseEnded unless an instance may be made with this lease."""
        if lease and lease not in self._held and not self._may_return(lease):
            raise _ended()

    def _may_return(self, lease: str) -> bool:
        return self._recovering and lease not in self._ended

    @contextlib.contextmanager
    def hold(self, lease: str = "") -> Iterator[str]:
        """Hold a new lease, or one that was held when the daemon ended: its id. Without `release`
        its instances are deleted afterwards, in the background. Raises LeaseEnded."""
        if lease and (lease in self._held or not self._may_return(lease)):
            raise _ended()
        lease = lease or secrets.token_hex(16)
        self._held.add(lease)
        try:
            yield lease
        finally:
            if lease in self._held and not self._suspended:
                self._end(lease)
                self._parts.tasks.start("lease", self._clear(lease))

    def suspend(self) -> None:
        """The daemon ends, and with it the connections: the next one has the leases."""
        self._suspended = True

    async def release(self, lease: str) -> None:
        """End a lease; returns when its instances are gone. Raises what kept one from it: that
        one is tried again in the background."""
        self._end(lease)
        if failures := await self._remove_all(lease):
            self._parts.tasks.start("lease", self._clear(lease, wait=True))
            raise failures[0]

    async def recover(self) -> None:
        """Wait for clients of the daemon before, then delete the instances of those that are
        gone."""
        await asyncio.sleep(GRACE)
        self._recovering = False
        self._ended.clear()
        left = {row.spec.lease for row in self._parts.store.all()} - self._held - {""}
        for lease in left:
            self._parts.tasks.start("lease", self._clear(lease))

    def _end(self, lease: str) -> None:
        """From now on nothing is made with it."""
        self._held.discard(lease)
        if self._recovering:
            self._ended.add(lease)

    async def _clear(self, lease: str, *, wait: bool = False) -> None:
        """Delete what a lease has, whatever it takes."""
        while wait or await self._remove_all(lease):
            wait = False
            await asyncio.sleep(RETRY)

    async def _remove_all(self, lease: str) -> list[Exception]:
        """Delete all instances of a lease at once; what went wrong."""
        rows = [row for row in self._parts.store.all() if row.spec.lease == lease]
        outcomes = await asyncio.gather(*map(self._remove, rows))
        return [outcome for outcome in outcomes if outcome]

    async def _remove(self, instance: Instance) -> Exception | None:
        self._instances.lifecycle.tell("lease-ended", instance)
        try:
            await self._instances.remove(instance.id, force=True, volumes=True)
        except NoSuchInstance:
            return None
        except (SubletError, OSError) as error:
            log.warning("%s is without its lease but still here: %s", instance.name, error)
            return error
        return None


def _ended() -> LeaseEnded:
    return LeaseEnded("The lease is not held: it has ended, and its instances with it.")
