"""Time to live: instances are deleted at the age that they were given, whatever their state.

What is due is decided by the rows and the wall clock alone, so that a restart of the daemon or
of the host changes nothing. One task waits for the next one, in the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from sublet.domain.change import next_expiry
from sublet.domain.errors import NoSuchInstance, SubletError
from sublet.domain.event import Event
from sublet.drivers import clock
from sublet.engine.instances import Instances
from sublet.engine.tasks import first

log = logging.getLogger(__name__)

RETRY = 10.0
"""Seconds after which a removal that failed is tried again."""

_NEWS = frozenset(
    f"instance.{what}" for what in ("created", "pending", "updated", "forked", "taken")
)
"""Events after which another instance may be the next one."""


class Expiry:
    """Deletes the instances of one daemon when their time has come."""

    def __init__(
        self,
        instances: Instances,
        now: Callable[[], float] = time.time,
        until: Callable[[float], Awaitable[None]] = clock.until,
    ) -> None:
        self._instances = instances
        self._parts = instances.parts
        self._now, self._until = now, until

    async def watch(self) -> None:
        """Delete what is due, for ever."""
        with self._parts.events.listen() as news:
            while True:
                lives = [(row.id, row.created, row.spec.ttl) for row in self._parts.store.all()]
                due, following = next_expiry(lives, self._now())
                done = await asyncio.gather(*map(self._expire, due))
                if not all(done):
                    again = self._now() + RETRY
                    following = min(following or again, again)
                due_again = [self._until(following)] if following else []
                await first(_told(news), *due_again)

    async def _expire(self, instance_id: str) -> bool:
        """Delete one; whether it is gone."""
        instance = self._parts.store.get(instance_id)
        if instance is None:
            return True
        self._instances.lifecycle.tell("expired", instance, ttl=f"{instance.spec.ttl:g}")
        try:
            await self._instances.remove(instance_id, force=True, volumes=True)
        except NoSuchInstance:
            return True
        except (SubletError, OSError) as error:
            log.warning("%s has expired but is still here: %s", instance.name, error)
            return False
        return True


async def _told(news: asyncio.Queue[Event]) -> None:
    while (await news.get()).type not in _NEWS:
        pass
