"""A page on a visit: what is done with it whichever browser shows it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from sublet.browser import scripts
from sublet.browser.conversation import CommandRefused, Conversation
from sublet.browser.failures import unselectable
from sublet.browser.sight import Sight
from sublet.browser.stdio import Messages
from sublet.domain.browsing import Visit

_IDLE = 5.0
"""Seconds after the load in which a page may come to rest; some never do."""


class Page(Conversation, ABC):
    """One page of one browser. `begin`, `load` and `take`, in this order, fill its `sight`."""

    def __init__(self, messages: Messages, visit: Visit) -> None:
        super().__init__(messages)
        self.visit = visit
        self.sight = Sight()

    @abstractmethod
    async def begin(self) -> None:
        """A blank page that looks as was asked for."""

    async def load(self) -> None:
        """Go to the page, and wait until it has come to rest, and for what the visit waits for.
        Raises PageUnreachable, InvalidArgument for what is no selector."""
        await self.go()
        await self._rest()
        if self.visit.selector:
            await self._select(self.visit.selector)
        if self.visit.wait:
            await self.listen(self.visit.wait)

    async def take(self) -> None:
        """The pictures, and what the page says of itself."""
        sight = self.sight
        sight.title = str(await self.evaluate("document.title"))
        sight.url = str(await self.evaluate("location.href"))
        if self.visit.screenshot:
            sight.screenshot = await self.picture()
        if self.visit.pdf:
            sight.pdf = await self.printed()

    @abstractmethod
    async def go(self) -> None:
        """Go to the page until it has loaded. Raises PageUnreachable."""

    @abstractmethod
    async def rested(self) -> None:
        """Return when the page loads nothing more and its letters are there."""

    @abstractmethod
    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression, or the promise that it is, comes to in the page. Raises
        CommandRefused."""

    @abstractmethod
    async def picture(self) -> bytes:
        """A PNG of the page."""

    @abstractmethod
    async def printed(self) -> bytes:
        """A PDF of the page."""

    def answered(self, status: object) -> None:
        """Keep the status of HTTP that the page came with; 0 is that of what came without."""
        self.sight.status = status if isinstance(status, int) and status else None

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_IDLE):
                await self.rested()
        except TimeoutError:
            self.sight.notes += (f"The page still loaded something {_IDLE:g} s later.",)

    async def _select(self, selector: str) -> None:
        try:
            await self.evaluate(scripts.until(selector))
        except CommandRefused as error:
            raise unselectable(selector) from error
