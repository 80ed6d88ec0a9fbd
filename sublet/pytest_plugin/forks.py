"""Forks of a source, the next ones made while a test runs."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from sublet.domain.errors import NoSuchInstance, SubletError, WrongState
from sublet.pytest_plugin.recipe import Recipe
from sublet.pytest_plugin.service import Service
from sublet.pytest_plugin.sources import Source, Sources
from sublet.sdk import Client

AHEAD = 2
"""Forks that are ready before they are asked for, at most."""

_GOING, _LOOK = 10.0, 0.05
"""Seconds that the deletion of a source may take, and between looks at it."""


class Forks:
    """The forks that one process makes of one source, with its lease."""

    def __init__(
        self,
        client: Client,
        lease: str,
        sources: Sources,
        recipe: Recipe,
        workers: ThreadPoolExecutor,
    ) -> None:
        self._client, self._lease, self._sources = client, lease, sources
        self._recipe, self._workers = recipe, workers
        self._ready: deque[Future[Service]] = deque()
        self._source = sources.get(recipe)
        self._taken = 0

    def take(self, uses: int) -> Service:
        """One that is healthy. `uses`: how many are wanted in all; 0: nobody knows, and one is
        kept ready as soon as a second has been asked for. Raises SubletError."""
        try:
            service = self._ready.popleft().result() if self._ready else self._made()
        except SubletError:  # that was then
            service = self._made()
        self._taken += 1
        left = uses - self._taken if uses else int(self._taken > 1)
        while len(self._ready) < min(AHEAD, left):
            self._ready.append(self._workers.submit(self._made))
        return service

    def drop(self) -> None:
        """Delete those that are ready: their room is needed."""
        while self._ready:
            with suppress(SubletError):
                self._client.remove(self._ready.popleft().result().id, force=True, volumes=True)

    def _made(self) -> Service:
        """Fork, start, and wait until it is healthy."""
        source, row = self._forked()
        service = source.service(self._client, row)
        try:
            self._client.start(row)
            service.await_healthy(self._recipe.timeout)
        except BaseException:
            self._client.remove(row, force=True, volumes=True)
            raise
        return service

    def _forked(self) -> tuple[Source, str]:
        """A fork's id. Where the source went with the worker that made it, there is a new one."""
        source = self._source
        try:
            return source, self._client.fork_of(source.id, lease=self._lease)["id"]
        except (NoSuchInstance, WrongState):
            if not self._is_gone(source.id):
                raise
        self._source = source = self._sources.get(self._recipe, gone=source.id)
        return source, self._client.fork_of(source.id, lease=self._lease)["id"]

    def _is_gone(self, id: str) -> bool:
        """Whether an instance is no more, or ends to be within a while."""
        until = time.monotonic() + _GOING
        try:
            while time.monotonic() < until:
                self._client.inspect(id)
                time.sleep(_LOOK)
        except NoSuchInstance:
            return True
        return False
