"""What forks are made of: instances that were prepared once in a run, and are stopped.

The workers of a run share a directory. Whoever comes first prepares, under a lock that the kernel
takes from a process that ends, and records what it made. It has that under a lease of its own, and
keeps it until no other worker forks any more: each of them holds a lock as long as it may.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sublet.domain.catalog import Offer
from sublet.domain.errors import InsufficientCapacity, NotHealthy, TimeoutExceeded
from sublet.pytest_plugin.recipe import Recipe
from sublet.pytest_plugin.service import Service
from sublet.sdk import Client
from sublet.sdk._sync.services import Services

_BUILD = 1800.0
"""Seconds that another worker may take to fetch or build an image, and to prepare."""

_OTHERS = 600.0
"""Seconds that the sources wait for other workers to end; one that still forks then prepares
anew."""

_CHECKS, _LOOK = 0.05, 0.02
"""Seconds between health checks of what starts, and between looks at a lock."""


@dataclass(frozen=True, slots=True)
class Source:
    """A stopped instance, and what a service that is forked of it offers."""

    id: str
    image: str
    offered: Offer
    environment: dict[str, str]

    def service(self, client: Client, id: str) -> Service:
        """A fork as a service; it is not known yet where it is."""
        return Service(client, self.image, self.offered, self.environment, id)


class Sources:
    """The sources of a run, for one of its processes."""

    def __init__(self, directory: Path, client: Client) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory, self._client = directory, client
        self._own: list[tuple[Path, Services]] = []
        self._users = (directory / "users").open("w")
        _lock(self._users, fcntl.LOCK_SH, _OTHERS)

    def get(self, recipe: Recipe, gone: str = "") -> Source:
        """The source of this recipe, made unless it is there; anew where that with the id `gone`
        is no more. Raises what `prepare` raises, and SubletError; who asks later is told so."""
        record = self._directory / f"{recipe.key}.json"
        with _locked(record.with_suffix(".lock"), _BUILD):
            found = json.loads(record.read_text()) if record.exists() else {"id": gone}
            if "error" in found:
                raise NotHealthy(
                    f"{recipe.image} was not to be prepared: {found['error']}",
                    hint="It is tried once in a run; its first failure tells more.",
                )
            if found["id"] != gone:
                return _source(found)
            try:
                source = self._make(recipe, record)
            except InsufficientCapacity:  # there may be room later
                raise
            except Exception as error:
                record.write_text(json.dumps({"error": f"{type(error).__name__}: {error}"}))
                raise
            record.write_text(json.dumps(asdict(source)))
            return source

    def _make(self, recipe: Recipe, record: Path) -> Source:
        """Start, prepare and stop one: a fork then starts as after an orderly end."""
        services = self._client.services(
            [recipe.image],
            env=recipe.env,
            timeout=recipe.timeout,
            check_every=_CHECKS,
            **recipe.options,
        )
        (found,) = services.__enter__()
        try:
            source = Source(found.id, found.image, found.offered, found.environment)
            if recipe.prepare:
                service = source.service(self._client, found.id)
                service.await_healthy(recipe.timeout)
                recipe.prepare(service)
            self._client.stop(found.id)
        except BaseException:
            services.close()
            raise
        self._own.append((record, services))
        return source

    def close(self) -> None:
        """No more forks are made here; what was made here goes when nobody else makes any."""
        fcntl.flock(self._users, fcntl.LOCK_UN)
        try:
            if self._own:
                _lock(self._users, fcntl.LOCK_EX, _OTHERS)
        except TimeoutExceeded:
            pass
        finally:
            for record, services in self._own:
                record.unlink(missing_ok=True)
                services.close()
            self._users.close()


def _source(found: dict[str, Any]) -> Source:
    return Source(**{**found, "offered": Offer(**found["offered"])})


@contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    with path.open("w") as file:
        _lock(file, fcntl.LOCK_EX, deadline)
        yield


def _lock(file: IO[str], kind: int, deadline: float) -> None:
    until = time.monotonic() + deadline
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutExceeded(
                    f"Another worker has {file.name} locked for {deadline:g} s."
                ) from None
            time.sleep(_LOOK)
        else:
            return
