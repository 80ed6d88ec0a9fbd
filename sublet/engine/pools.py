"""Warm pools: sandboxes that run already when somebody asks for one.

A ready sandbox is an instance whose row tells its pool. Handing it out is a change of that row, in
one transaction: whatever happens to the daemon, it is the pool's or somebody's, never both.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from sublet.domain import pools
from sublet.domain.capacity import fits
from sublet.domain.errors import NoSuchImage, NoSuchInstance, NoSuchPool, SubletError
from sublet.domain.instance import LIVE, Instance
from sublet.domain.pools import LABEL, Pool, Rest
from sublet.domain.spec import InstanceSpec
from sublet.drivers.store.pools import PoolStore
from sublet.engine.instances import Instances
from sublet.engine.tasks import first

log = logging.getLogger(__name__)

LOOK = 30.0
"""Seconds after which all is looked at again though nothing was told: the name of an image may
mean another one now."""

QUIET = 0.2
"""Seconds after a hand-out in which none is made where there is another: who got one works in it
now, and is not to wait for the making of the next."""


class Pools:
    """The pools of one daemon."""

    def __init__(self, instances: Instances, store: PoolStore) -> None:
        self._instances, self.store = instances, store
        self._lifecycle, self._parts = instances.lifecycle, instances.parts
        self._market, self._spares = instances.market, instances.market.spares
        self._spares.remove = self._remove
        self._parts.store.listeners.append(self._row_changed)
        self._making: Counter[str] = Counter()
        self._rests: dict[str, Rest] = {}
        self._quiet = 0.0
        """Until when none is made, on the monotonic clock."""
        self._changed = asyncio.Event()

    # Looking

    def get(self, name: str) -> Pool:
        """The pool of this name. Raises NoSuchPool."""
        found = self.store.get(name)
        if found is None:
            raise NoSuchPool(f"There is no pool '{name}'.")
        return found

    def rows(self, pool: Pool) -> list[Instance]:
        """Its sandboxes, whatever their state."""
        return [row for row in self._parts.store.pooled() if row.pool == pool.id]

    def ready(self, pool: Pool) -> int:
        """How many can be handed out."""
        return sum(row.pool == pool.id for row in self._spares.ready())

    def trouble(self, pool: Pool) -> str:
        """Why nothing is made now, if it should be; else empty."""
        if self._instances.images.local(pool.spec.image) is None:
            return "its image is not on this host"
        if self.ready(pool) + self._making[pool.id] >= pool.size:
            return ""
        if self._market.pressed:
            return f"the host is short of {self._market.pressed}"
        if not fits(pool.spec.size, self._market.free()):
            return "the host has no room"
        resting = self._rests.get(pool.id)
        return resting.reason if resting else ""

    # Changing

    def put(self, name: str, size: int, spec: InstanceSpec) -> Pool:
        """Keep `size` sandboxes as `spec` asks for ready. A pool of this name, or without a name
        one of the same sandboxes, gets that size; one of other sandboxes lets those go.

        Raises InvalidArgument, and NoSuchImage unless the image is on this host.
        """
        spec = self._instances.complete(spec)
        if self._instances.images.local(spec.image) is None:
            raise NoSuchImage(f"The image '{spec.image}' is not on this host.")
        before = self.store.get(name) if name else self._alike(spec)
        if before is None:
            taken = {pool.name for pool in self.store.every()}
            name = name or pools.name_for(spec.image, vm=spec.vm, taken=taken)
        name = before.name if before else name
        spec = replace(spec, labels={**spec.labels, LABEL: name})
        pools.check_pool(name, size, spec)
        pool = Pool(secrets.token_hex(6), name, size, spec, time.time())
        if before:
            pool = replace(pool, created=before.created)
            if before.spec == spec:
                pool = replace(pool, id=before.id)
        self.store.put(pool)
        self._rests.pop(pool.id, None)
        self._tell("set", pool, size=str(size))
        return pool

    def _alike(self, spec: InstanceSpec) -> Pool | None:
        wanted = (spec.image, pools.key(spec))
        for pool in self.store.every():
            if (pool.spec.image, pools.key(pool.spec)) == wanted:
                return pool
        return None

    async def remove(self, name: str) -> None:
        """Delete a pool with its sandboxes; those that were handed out stay."""
        pool = self.get(name)
        self.store.delete(name)
        self._rests.pop(pool.id, None)
        self._tell("removed", pool)
        while rows := self.rows(pool):  # one may just be made
            self._spares.going.update(row.id for row in rows)  # at once: nobody is to get one
            await asyncio.gather(*map(self._delete, rows))
            if failed := [row for row in self.rows(pool) if row.id in {r.id for r in rows}]:
                raise SubletError(f"{failed[0].name} of the pool {name} could not be deleted.")

    def _tell(self, what: str, pool: Pool, **detail: str) -> None:
        self._parts.events.publish(f"pool.{what}", name=pool.name, **detail)
        self._changed.set()

    # Handing out

    def take(self, spec: InstanceSpec) -> Instance | None:
        """A ready sandbox for this request, which is from now on that of who asked; None where
        no pool has one. Raises what a start would: NameInUse, BudgetExceeded, LeaseEnded, …"""
        ready = self._spares.ready()
        if not ready:
            return None
        spec = self._instances.complete(spec)
        found = self._match(ready, spec)
        if found is None:
            return None
        self._lifecycle.permit(spec, "")
        self._market.check(spec)
        self._instances.leased(spec.lease)
        pool, row = found.pool, pools.handed_out(found, spec, time.time())
        self._quiet = time.monotonic() + QUIET
        self._parts.store.update(row)
        name = next((each.name for each in self.store.every() if each.id == pool), "")
        self._lifecycle.tell("taken", row, pool=name)
        if row.name != found.name:
            self._parts.tasks.start(f"name {row.name}", self._announce(row.id))
        return row

    def _match(self, ready: list[Instance], spec: InstanceSpec) -> Instance | None:
        image, wanted = self._instances.images.local(spec.image), pools.key(spec)
        if image is None:
            return None
        alike = {pool.id for pool in self.store.every() if pools.key(pool.spec) == wanted}
        for row in ready:
            fit = row.pool in alike and row.digest == image.digest
            if fit and not self._lifecycle.locks.action(row.id) and self._lifecycle.alive(row):
                return row
        return None

    async def _announce(self, instance_id: str) -> None:
        """Let others on its networks find it by its new name."""
        async with self._lifecycle.locks.hold(instance_id, "rename"):
            row = self._parts.store.get(instance_id)
            if row is not None and row.state in LIVE:
                await self._parts.network.announce(self._lifecycle.connections.endpoint(row))

    # At work

    def _row_changed(self, old: Instance | None, new: Instance | None) -> None:
        if (old and old.pool) or (new and new.pool):
            if new is None and old:
                self._spares.going.discard(old.id)
            self._changed.set()

    async def watch(self) -> None:
        """Keep every pool at its size, for ever."""
        with self._market.claims.listen() as room:
            while True:
                self._changed.clear()
                room.clear()
                self._look()
                waits: list[Awaitable[Any]] = [self._changed.wait()]
                if self.store.every() or self._parts.store.pooled():
                    waits += [room.wait(), asyncio.sleep(self._pause())]
                await first(*waits)

    def _pause(self) -> float:
        now = time.monotonic()
        moments = [self._quiet, *(rest.until for rest in self._rests.values())]
        return min([LOOK, *(moment - now for moment in moments if moment > now)])

    def _look(self) -> None:
        known = {pool.id: pool for pool in self.store.every()}
        for row in self._parts.store.pooled():
            if row.pool not in known:
                self._drop(row)
        for pool in known.values():
            image = self._instances.images.local(pool.spec.image)
            work = pools.work(
                pool, image.digest if image else "", self._settled(pool), self._making[pool.id]
            )
            for instance_id in work.remove:
                if row_found := self._parts.store.get(instance_id):
                    self._drop(row_found)
            for _ in range(work.make):
                if not self._begin(pool):
                    break

    def _settled(self, pool: Pool) -> list[Instance]:
        return [row for row in self.rows(pool) if row.id not in self._spares.going]

    def _begin(self, pool: Pool) -> bool:
        """Begin to make one, unless others are being made, it has failed just now, one was handed
        out just now, the host is short of something, or there is no room that nobody else wants."""
        now = time.monotonic()
        resting = self._rests.get(pool.id)
        market = self._market
        if sum(self._making.values()) >= pools.AT_ONCE or market.draining or market.pressed:
            return False
        if resting and resting.until > now:
            return False
        if self._quiet > now and self.ready(pool):
            return False
        if not fits(pool.spec.size, self._market.free()):
            return False
        self._making[pool.id] += 1
        self._parts.tasks.start(f"pool {pool.name}", self._make(pool))
        return True

    async def _make(self, pool: Pool) -> None:
        try:
            if pool not in self.store.every():
                return
            self._market.admit_now(pool.spec)  # of what is free: nobody makes room for it
            await self._instances.run(pool.spec, wait=False, pool=pool.id)
            self._rests.pop(pool.id, None)
        except (SubletError, OSError) as error:
            log.warning("the pool %s lacks a sandbox: %s", pool.name, error)
            reason = error.message if isinstance(error, SubletError) else str(error)
            before = self._rests.get(pool.id)
            self._rests[pool.id] = pools.rest(before, reason, time.monotonic())
        finally:
            self._making[pool.id] -= 1
            self._changed.set()

    # Letting go

    def _drop(self, row: Instance) -> None:
        if row.id not in self._spares.going:
            self._spares.going.add(row.id)
            self._remove(row)

    def _remove(self, row: Instance) -> None:
        self._parts.tasks.start(f"pool lets {row.name} go", self._delete(row))

    async def _delete(self, row: Instance) -> None:
        """Delete one of those that go."""
        try:
            await self._instances.remove(row.id, force=True, volumes=True)
        except NoSuchInstance:
            pass
        except (SubletError, OSError) as error:
            log.warning("%s is no pool's any more but still here: %s", row.name, error)
            await asyncio.sleep(pools.FIRST_PAUSE)
        finally:
            self._spares.going.discard(row.id)
            self._changed.set()
