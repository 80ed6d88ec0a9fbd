"""Commands, their answers, and events, as both protocols of browsers number and name them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from sublet.browser.stdio import Messages
from sublet.domain.errors import BrowserFailed


class CommandRefused(Exception):
    """The browser's own words about a command that it did not carry out."""


class Conversation:
    """One at a time: whoever waits for an answer hears the events that come before it."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._last = 0
        self._answers: dict[int, dict[str, Any]] = {}

    async def call(self, method: str, /, **params: Any) -> dict[str, Any]:
        """Give a command; its result. Raises CommandRefused, BrowserFailed."""
        number = await self.post(method, **params)
        await self.until(lambda: number in self._answers)
        answer = self._answers.pop(number)
        if problem := answer.get("error"):
            told = problem.get("message") if isinstance(problem, dict) else answer.get("message")
            raise CommandRefused(str(told or problem))
        result = answer.get("result")
        return result if isinstance(result, dict) else {}

    async def post(self, method: str, /, **params: Any) -> int:
        """Give a command without waiting for what becomes of it; its number."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params, **self.address(method)}
        await self._messages.send(json.dumps(message))
        return self._last

    async def until(self, condition: Callable[[], bool]) -> None:
        """Take in messages until the condition holds."""
        while not condition():
            await self._take()

    async def listen(self, seconds: float) -> None:
        """Take in messages for a time."""
        try:
            async with asyncio.timeout(seconds):
                await self.until(lambda: False)
        except TimeoutError:
            return

    def address(self, method: str) -> dict[str, Any]:
        """What else a command's message says: to whom it is."""
        return {}

    async def heard(self, method: str, params: dict[str, Any]) -> None:
        """An event has come."""

    async def _take(self) -> None:
        try:
            message = json.loads(await self._messages.receive())
        except (ValueError, RecursionError) as error:
            raise BrowserFailed("The browser sent something that is not JSON.") from error
        if not isinstance(message, dict):
            return
        number, method, params = (message.get(key) for key in ("id", "method", "params"))
        if isinstance(number, int):
            self._answers[number] = message
        elif isinstance(method, str):
            await self.heard(method, params if isinstance(params, dict) else {})


def decoded(result: dict[str, Any]) -> bytes:
    """The file in a result. Raises BrowserFailed."""
    try:
        return base64.b64decode(result["data"], validate=True)
    except (KeyError, TypeError, binascii.Error, ValueError) as error:
        raise BrowserFailed("The browser sent no file.") from error
