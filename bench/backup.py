"""A backup of a 1 GiB volume of which 1 % has changed, beside bare restic on the same files.

1,024 files of 1 MiB; before each round ten of them are written anew, in place. Both keep the
files in a repository of their own on the same disk. Sublet's backup is of a running container:
the copy that its files are read from is in the time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.engines import IMAGE
from bench.lab import Lab
from bench.measure import Aim, Findings, Peer, Row, Sampled, ratio, rows, sample

FILES, CHANGED, MIB = 1024, 10, 1 << 20
FILL = (
    f"cd /data && for f in $(seq {FILES}); do head -c {MIB} /dev/urandom > $f; done; sync; "
    "touch /ready; sleep inf"
)
CHANGE = f"cd /data && for f in $(shuf -i 1-{FILES} -n {CHANGED}); do head -c {MIB} /dev/urandom "
CHANGE += "> $f; done; sync"


def run(lab: Lab) -> Findings:
    """Both in turn; the changes are made before the round's first, and are not timed."""
    client, work = lab.client, lab.work
    box = client.run(IMAGE, ["sh", "-c", FILL], volumes=["/data"], memory="2g")
    box.exec(["sh", "-c", "until [ -e /ready ]; do sleep 0.2; done"])
    mount = client.inspect(box.id)["mounts"][0]["source"]
    files = Path(client.inspect_volume(mount)["mountpoint"])
    env = {
        **os.environ,
        "RESTIC_REPOSITORY": str(work / "bare"),
        "RESTIC_PASSWORD_FILE": str(work / "password"),
    }
    (work / "password").write_text("none of anybody's business")
    turn = [0]

    def changed() -> None:
        if turn[0] % 2 == 0:
            box.exec(["sh", "-c", CHANGE])
        turn[0] += 1

    def restic(*args: str) -> None:
        argv = ["restic", "--no-cache", "--quiet", *args]
        subprocess.run(argv, env=env, check=True, capture_output=True)

    restic("init")
    peers: dict[str, Peer] = {
        "sublet backup": lambda: _ignored(client.backup(box.id)),
        "bare restic": lambda: restic("backup", str(files)),
    }
    try:
        sampled = {name: _after(changed, peer) for name, peer in peers.items()}
        timings = sample(sampled, min(lab.rounds, 9), warm_up=1)
        told = [e for e in client.events() if e["type"] == "backup.copied"]
    finally:
        box.remove(force=True)
    pauses = [float(event["detail"]["paused_ms"]) for event in told][1:]
    found = rows("backup", timings)
    longest = f"longest {max(pauses):.1f} ms"
    found.append(Row("backup", "of which paused", statistics.median(pauses), "ms", longest))
    what = "backup of 1 GiB, 1 % changed, against bare restic"
    aims = ratio(what, timings, "sublet backup", "bare restic", 1.3, most=True)
    return Findings(found, [*aims, Aim("backup: longest pause", max(pauses), "ms", 200, most=True)])


def _after(change: Callable[[], None], peer: Peer) -> Sampled:
    """The peer, timed without the change that comes before it."""

    def once() -> float:
        change()
        start = time.perf_counter()
        peer()
        return (time.perf_counter() - start) * 1000

    return once


def _ignored(_: object) -> None:
    """A result that nobody needs."""
