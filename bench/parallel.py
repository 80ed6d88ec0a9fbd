"""Containers a second: started, run to their end and deleted, 1, 8 and 32 at a time.

Sublet and Docker are asked the same way, by one small HTTP client in threads of this process,
without the streams of a foreground run; so neither pays for a command line tool. Podman has no
daemon: its command line is all there is, and is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.engines import IMAGE, NAME
from bench.lab import Lab
from bench.measure import Aim, Findings, Row
from sublet.sdk import Client
from sublet.sdk._sync import wire

COUNTS = {1: 8, 8: 32, 32: 64}
"""Containers in a turn, by how many go at a time."""
TURNS = 3


def run(lab: Lab) -> Findings:
    """Each engine in turn at each width; the median of the turns."""
    peers: dict[str, Callable[[], None]] = {"sublet": _sublet(lab)}
    if lab.has("docker"):
        peers["docker"] = _docker(lab.docker.socket)
    rates: dict[tuple[str, int], list[float]] = {}
    for width in COUNTS:
        for turn in range(-1, TURNS):
            for name, once in peers.items():
                rate = _rate(once, width, COUNTS[width])
                if turn >= 0:
                    rates.setdefault((name, width), []).append(rate)
    medians = {key: sorted(values)[len(values) // 2] for key, values in rates.items()}
    rows = [
        Row("parallel", f"{name}, {width} at a time", value, "per second")
        for (name, width), value in medians.items()
    ]
    aims = []
    if "docker" in peers:
        value = medians["sublet", 8] / medians["docker", 8]
        aims = [Aim("starts a second, 8 at a time: times Docker", value, "x", 10, most=False)]
    return Findings(rows, aims)


def _rate(once: Callable[[], None], width: int, count: int) -> float:
    """Containers a second, `count` in all, `width` of them at a time."""
    with ThreadPoolExecutor(width) as pool:
        start = time.perf_counter()
        for future in [pool.submit(once) for _ in range(count)]:
            future.result()
        return count / (time.perf_counter() - start)


def _sublet(lab: Lab) -> Callable[[], None]:
    client = Client(lab.sublet.socket)

    def once() -> None:
        instance = client.run(IMAGE, ["true"], remove=True)
        if instance.wait() != 0:
            raise RuntimeError("true failed")

    return once


def _docker(socket: str) -> Callable[[], None]:
    def call(method: str, target: str, body: Any = None) -> Any:
        text = b"".join(wire.stream(method, target, body, path=socket))
        return json.loads(text) if text.strip() else None

    def once() -> None:
        body = {"Image": NAME, "Cmd": ["true"], "HostConfig": {"AutoRemove": True}}
        identity = call("POST", "/containers/create", body)["Id"]
        gone = wire.stream("POST", f"/containers/{identity}/wait?condition=removed", path=socket)
        with ThreadPoolExecutor(1) as waiting:
            ended = waiting.submit(lambda: b"".join(gone))
            call("POST", f"/containers/{identity}/start")
            if json.loads(ended.result())["StatusCode"] != 0:
                raise RuntimeError("true failed")

    return once
