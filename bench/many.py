"""448 containers of 2 vCPUs on one host, with its vCPUs sold 512 times over.

All are started, eight at a time; each has an address and limits of its own; all are removed.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench.engines import IMAGE
from bench.host import tops
from bench.lab import Lab
from bench.measure import Aim, Findings, Row
from sublet.sdk import Client, Instance

COUNT, WIDTH = 448, 8


def run(lab: Lab) -> Findings:
    """Start, look, remove."""
    client = Client(lab.sublet.socket)
    client.output(IMAGE, ["true"])
    took: list[float] = []

    def start(number: int) -> Instance:
        begin = time.perf_counter()
        name = f"many{number}"
        made = client.run(IMAGE, ["sleep", "infinity"], name=name, cpus=2, memory="31m")
        took.append((time.perf_counter() - begin) * 1000)
        return made

    with ThreadPoolExecutor(WIDTH) as pool:
        begin = time.perf_counter()
        made = list(pool.map(start, range(COUNT)))
        started = time.perf_counter() - begin
        seen = list(pool.map(lambda instance: instance.inspect(), made))
        up = [row for row in seen if row["state"] == "running" and _limited(row["id"])]
        begin = time.perf_counter()
        list(pool.map(lambda instance: instance.remove(force=True), made))
        removed = time.perf_counter() - begin
    addresses = {row["address"] for row in up}
    left = client.ps(all=True), client.audit()
    first, last = median(took[:50]), median(took[-50:])
    rows = [
        Row("many", "all started", started, "s", f"{COUNT / started:.0f} per second"),
        Row("many", "one start, the first 50", first, "ms", f"{WIDTH} at a time"),
        Row("many", "one start, the last 50", last, "ms", f"{last / first:.2f} times the first"),
        Row("many", "all removed", removed, "s", f"{COUNT / removed:.0f} per second"),
    ]
    aims = [
        Aim(
            "448 of 2 vCPUs: up, own address, limits in force",
            len(addresses),
            "of 448",
            COUNT,
            most=False,
        ),
        Aim("448 of 2 vCPUs: left behind", len(left[0]) + len(left[1]), "things", 0, most=True),
    ]
    return Findings(rows, aims)


def _limited(instance: str) -> bool:
    """Whether the kernel holds the instance to its 2 vCPUs (cgroup version 1, version 2)."""
    found = {"cpu.cfs_quota_us": "200000\n", "cpu.max": "200000 100000\n"}
    return any(
        path.read_text() == wanted
        for top in tops()
        for file, wanted in found.items()
        for path in top.glob(f"sublet*/{instance}/{file}")
    )
