"""A hundred spot instances at once, with the notice that tenants really get."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import eventually
from marketlab import IMAGE, seconds, small_host

from sublet.sdk import Client

COUNT, NOTICE = 100, 120.0
QUIET = ("sh", "-c", "trap 'exit 3' TERM; sleep 1000 & wait")
"""Ends when it is asked to, and takes no CPU until then."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_are_told_within_a_second_and_taken_after_120() -> None:
    with small_host(8 << 30, SUBLET_NOTICE="120s", SUBLET_OVERCOMMIT="64") as host:
        client = Client(str(host.run_dir / "sublet.sock"))

        def start(number: int) -> None:
            spot = {"on_reclaim": "stop" if number % 2 else "terminate"}
            client.run(IMAGE, QUIET, name=f"n{number}", cpus=0.1, memory="16m", spot=spot)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(start, range(COUNT)))
        asked = time.time()
        assert len(client.reclaim(all=True)) == COUNT
        time.sleep(NOTICE - 5)
        assert len(client.ps()) == COUNT, "not before the deadline"
        eventually(lambda: not client.ps(), "all have ended", 30)
        eventually(lambda: len(client.ps(all=True)) == COUNT / 2, "half of them are gone")
        assert {row["state"] for row in client.ps(all=True)} == {"stopped"}
        found: dict[str, dict[str, float]] = {}
        due: dict[str, float] = {}
        for event in client.events(since="10m"):
            found.setdefault(event["type"], {})[event["instance"]] = seconds(event["time"])
            if event["type"] == "instance.notice":
                due[event["instance"]] = seconds(event["detail"]["time"])
        given, taken = found["instance.notice"], found["instance.reclaim"]
        assert len(given) == len(taken) == COUNT
        assert max(given.values()) - asked < 1
        assert all(abs(taken[name] - given[name] - NOTICE) < 1 for name in given)
        assert all(taken[name] >= due[name] for name in given), "none before"
        ended = {**found["instance.stopped"], **found["instance.terminated"]}
        assert max(ended[name] for name in given) - max(taken.values()) < 5
