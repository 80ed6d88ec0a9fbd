"""What one process of a run of pytest has: a lease, sources, forks, and who uses them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest

from sublet.domain.errors import InsufficientCapacity, NoSuchInstance, SubletError
from sublet.pytest_plugin.forks import Forks
from sublet.pytest_plugin.recipe import Recipe
from sublet.pytest_plugin.service import Service
from sublet.pytest_plugin.sources import Sources
from sublet.sdk import Client

_THREADS = 3
"""Forks that are made, and used ones that are deleted, at once."""

_ROOM, _LOOK = 10.0, 0.25
"""Seconds that a test waits for the room of what is being deleted, and between tries."""


class Run:
    """`directory` is shared with the other workers of the run. `keep`: what a failed test had
    stays. Raises SubletError where there is no daemon."""

    def __init__(self, directory: Path, socket: str, *, keep: bool) -> None:
        self._client, self._keep = Client(socket), keep
        self._lease = self._client.lease().open()
        self._sources = Sources(directory, self._client)
        self._workers = ThreadPoolExecutor(_THREADS, "sublet")
        self._forks: dict[str, Forks] = {}
        self._live: dict[Service, tuple[pytest.Item | pytest.Collector, str]] = {}
        self._kept: set[Service] = set()
        self._deletions: set[Future[None]] = set()

    def take(
        self, recipe: Recipe, node: pytest.Item | pytest.Collector, fixture: str = "", uses: int = 0
    ) -> Service:
        """A service for the tests below `node` that have this fixture (empty: any); `uses` as of
        `Forks.take`. Raises SubletError, and what `prepare` raises."""
        until = time.monotonic() + _ROOM
        while True:
            try:
                service = self._forks_of(recipe).take(uses)
                break
            except InsufficientCapacity:
                if time.monotonic() > until:
                    raise
            self._make_room()
        self._live[service] = node, fixture
        return service

    def _forks_of(self, recipe: Recipe) -> Forks:
        if recipe.key not in self._forks:
            forks = Forks(self._client, self._lease.id, self._sources, recipe, self._workers)
            self._forks[recipe.key] = forks
        return self._forks[recipe.key]

    def _make_room(self) -> None:
        """Delete what is ready ahead, and wait for what is being deleted; and for others."""
        for forks in self._forks.values():
            forks.drop()
        wait(self._deletions, timeout=_ROOM)
        time.sleep(_LOOK)

    def give_back(self, service: Service) -> None:
        """It is deleted in the background, unless it stays."""
        del self._live[service]
        if service not in self._kept:
            self._deletions.add(self._workers.submit(self._delete, service))

    def _delete(self, service: Service) -> None:
        with suppress(NoSuchInstance):
            self._client.remove(service.id, force=True, volumes=True)

    def told(self, item: pytest.Item) -> Iterator[tuple[str, str]]:
        """Sections of a failed test's report: what its services wrote, and where they stay."""
        for service, (node, fixture) in self._live.items():
            if node in item.listchain() and fixture in ("", *getattr(item, "fixturenames", ())):
                text = service.told()
                if self._keep:
                    text = f"{text}\n{self._stay(service)}"
                yield f"{service.image} in {service.instance} wrote last", text

    def _stay(self, service: Service) -> str:
        try:
            self._client.update(service.id, lease="")
        except SubletError as error:
            return f"It does not stay: {error.message}"
        self._kept.add(service)
        name = service.instance
        return (
            f"It stays: {service.url or service.host}\n"
            f"`sublet exec -it {name} sh` looks inside, `sublet rm -f {name}` deletes it."
        )

    def close(self) -> list[str]:
        """Delete all that is left, and return when it is gone; what went wrong."""
        self._workers.shutdown(cancel_futures=True)
        problems = []
        for close in (self._lease.close, self._sources.close):
            try:
                close()
            except SubletError as error:
                problems.append(str(error))
        return problems
