"""What a snapshot of a running container takes: 1 GiB in 10,000 files, while it writes.

Beside it `docker commit`, which copies (and pauses for all of that time), and cp --archive of
the same files. How long Sublet pauses the container is what its event says.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from bench.engines import IMAGE, NAME
from bench.lab import Lab
from bench.measure import Aim, Findings, Row, measure, rows

FILES, SIZE = 10_000, 1 << 30
FILL = (
    f"mkdir /data && cd /data && head -c {SIZE // FILES} /dev/urandom > /block && "
    f"for d in $(seq 100); do mkdir $d; for f in $(seq {FILES // 100}); do cp /block $d/$f; "
    "done; done; sync"
)
WRITE = "while :; do date > /data/1/1; cat /block > /data/log; sleep 0.01; done"
MIB = 1 << 20


def run(lab: Lab) -> Findings:
    """Sublet's snapshot and fork, Docker's commit, a plain copy, in turn."""
    client = lab.client
    pauses: list[float] = []
    kept: list[str] = []
    box = client.run(IMAGE, ["sh", "-c", f"{FILL}; touch /ready; {WRITE}"], memory="2g")
    box.exec(["sh", "-c", "until [ -e /ready ]; do sleep 0.2; done"])
    pool = Path(os.environ["SUBLET_ROOT"]) / "pool.img"
    before = _used(pool)

    def snapshot() -> None:
        kept.append(client.snapshot(box.id)["id"])
        told = [e for e in client.events() if e["type"] == "instance.snapshot"]
        pauses.append(float(told[-1]["detail"]["paused_ms"]))

    def fork() -> None:
        client.remove(client.fork_of(box.id)["id"], force=True)

    def copy() -> None:
        box.exec(["sh", "-c", "cp --archive /data /copy && rm -r /copy"])

    peers = {"sublet snapshot": snapshot, "sublet fork, until it runs": fork, "cp --archive": copy}
    docker = ""
    if lab.has("docker"):
        docker = lab.docker("run", "-d", NAME, "sh", "-c", f"{FILL}; touch /ready; {WRITE}").strip()
        lab.docker("exec", docker, "sh", "-c", "until [ -e /ready ]; do sleep 0.2; done")

        def commit() -> None:
            lab.docker("rmi", lab.docker("commit", docker).strip())

        peers["docker commit"] = commit
    try:
        timings = measure(peers, min(lab.rounds, 5), warm_up=1)
        shared = (_used(pool) - before) / len(kept) / MIB if pool.exists() else 0.0
    finally:
        for name in kept:
            client.remove_snapshot(name)
        box.remove(force=True)
        if docker:
            lab.docker("rm", "-f", docker)
    pause = statistics.median(pauses)
    found = rows("snapshot", timings)
    found += [
        Row("snapshot", "of which paused", pause, "ms", f"longest {max(pauses):.1f} ms"),
        Row("snapshot", "disk for one more snapshot", shared, "MiB", "of 1024 MiB"),
    ]
    return Findings(found, [Aim("snapshot: longest pause", max(pauses), "ms", 200, most=True)])


def _used(file: Path) -> int:
    return file.stat().st_blocks * 512 if file.exists() else 0
