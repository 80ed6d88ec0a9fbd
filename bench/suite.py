"""What a test waits for a PostgreSQL of its own with 100 MB in it, of the pytest plugin.

For a fork that was made while the test before ran, for one that is made when it is asked for, and
for a fresh instance that is filled.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.lab import Lab
from bench.measure import Findings, rows, sample
from sublet.pytest_plugin.forks import Forks
from sublet.pytest_plugin.recipe import Recipe
from sublet.pytest_plugin.service import Service
from sublet.pytest_plugin.sources import Sources
from sublet.sdk import Client

IMAGE, AHEAD = "postgres:15", 10**9
FILL = "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 330000) n"
TEST = 1.5
"""Seconds that a test takes, in which the next fork is made."""


def migrate(db: Service) -> None:
    """Some 100 MB."""
    done = db.exec(["psql", "-qU", "postgres", "-c", FILL])
    assert done.exit_code == 0, done.stderr


def run(lab: Lab) -> Findings:
    """Each, in turn."""
    client = lab.client
    client.ensure(IMAGE)
    with tempfile.TemporaryDirectory() as place, client.lease() as lease:
        sources = Sources(Path(place) / "sublet", client)
        try:
            with ThreadPoolExecutor(2) as workers:
                kinds = [
                    Forks(client, lease.id, sources, Recipe(IMAGE, migrate), workers)
                    for _ in range(2)
                ]
                peers = {
                    "a fork, ready ahead": _test(client, kinds[0], AHEAD),
                    "a fork, made when asked for": _test(client, kinds[1], 1),
                    "a fresh start, filled": lambda: _fresh(client),
                }
                taken = sample(peers, min(lab.rounds, 10), warm_up=1)
        finally:
            sources.close()
    return Findings(rows("suite", taken), [])


def _test(client: Client, forks: Forks, uses: int) -> Callable[[], float]:
    """A test, of which the wait counts: milliseconds."""

    def once() -> float:
        begun = time.perf_counter()
        service = forks.take(uses)
        waited = time.perf_counter() - begun
        time.sleep(TEST)
        client.remove(service.id, force=True, volumes=True)
        return waited * 1000

    return once


def _fresh(client: Client) -> float:
    begun = time.perf_counter()
    with client.services([IMAGE]) as services:
        (started,) = services
        service = Service(client, IMAGE, started.offered, started.environment, started.id)
        migrate(service)
        return (time.perf_counter() - begun) * 1000
