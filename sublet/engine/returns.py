"""Spot requests that wait are filled when there is room and the price allows."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sublet.domain.capacity import fits
from sublet.domain.errors import SubletError
from sublet.domain.instance import Instance, State
from sublet.domain.spot import Request, RequestState, due
from sublet.engine.instances import Instances
from sublet.engine.market import SpotMarket

log = logging.getLogger(__name__)

LONGEST_REST, PAUSE = 60.0, 1.0
"""Seconds that an instance which was reclaimed stays down at least, where a notice is longer; and
between two looks at those that rest."""

AGAIN, AGAIN_MOST = 5.0, 300.0
"""Seconds after which a start that failed is tried again, twice as many each time, up to these."""


class Returns:
    """Starts and wakes the instances of requests that are to be filled."""

    def __init__(self, market: SpotMarket, instances: Instances) -> None:
        self._market, self._instances = market, instances
        self._rest = min(LONGEST_REST, market.config.notice)
        self._failed: dict[str, tuple[float, float]] = {}
        """Of those whose start failed: when it may be tried again, and the pause after that."""

    async def watch(self) -> None:
        """Fill what can be filled, for ever; without a request that waits it costs nothing."""
        with self._market.claims.listen() as news:
            while True:
                news.clear()
                resting = await self._fill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE if resting else None):
                        await news.wait()

    async def _fill(self) -> bool:
        """Fill those that can be; whether any of them will be due by the passing of time."""
        resting, wanted = False, self._market.requests.wanted()
        waits = {request.id for request in wanted}
        self._failed = {name: found for name, found in self._failed.items() if name in waits}
        for request in wanted:
            row = self._instances.parts.store.get(request.instance)
            if row is None or row.state not in (State.STOPPED, State.HIBERNATED):
                continue
            if self._possible(request, row):
                await self._start(request, row)
            else:
                resting |= self._rests(request)
        return resting

    def _rests(self, request: Request) -> bool:
        now = self._market.now()
        if self._failed.get(request.id, (0.0, 0.0))[0] > now:
            return True
        return request.state is RequestState.DISABLED and now < request.updated + self._rest

    def _possible(self, request: Request, row: Instance) -> bool:
        market = self._market
        if self._rests(request):
            return False
        if market.draining or market.pressed or not fits(row.spec.size, market.free()):
            return False
        price, now = market.price(row.spec), market.now()
        return due(request, price=price, now=now, rest=self._rest)

    async def _start(self, request: Request, row: Instance) -> None:
        requests = self._market.requests
        requests.filling[row.id] = request.status
        self._instances.lifecycle.tell("return", row, request=request.id)
        try:
            if row.state is State.HIBERNATED:
                await self._instances.wake(row.id)
            else:
                await self._instances.start(row.id)
        except (SubletError, OSError) as error:
            log.warning("%s could not come back: %s", row.name, error)
            _, pause = self._failed.get(request.id, (0.0, AGAIN))
            self._failed[request.id] = (self._market.now() + pause, min(2 * pause, AGAIN_MOST))
            requests.failed(row.id)
        else:
            self._failed.pop(request.id, None)
        finally:
            requests.filling.pop(row.id, None)
