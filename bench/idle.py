"""What the daemon costs when nothing happens, with ten idle containers.

Docker beside it: dockerd and its containerd together.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench.engines import IMAGE
from bench.host import cpu_seconds, with_children
from bench.lab import Lab
from bench.measure import Aim, Findings, Row

SECONDS, COUNT, MIB = 20, 10, 1 << 20


def run(lab: Lab) -> Findings:
    """Twenty seconds of both daemons at once."""
    made = [lab.client.run(IMAGE, ["sleep", "infinity"], memory="32m") for _ in range(COUNT)]
    daemons = {"sublet": {lab.sublet.pid}}
    if lab.has("docker"):
        daemons["docker"] = with_children(lab.docker.pid)
    time.sleep(2)
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in daemons.items()}
    time.sleep(SECONDS)
    after = {name: sum(map(cpu_seconds, pids)) for name, pids in daemons.items()}
    resident = {name: sum(map(_resident, pids)) / MIB for name, pids in daemons.items()}
    for instance in made:
        instance.remove(force=True)
    share = {name: 100 * (after[name] - before[name]) / SECONDS for name in daemons}
    rows = [Row("idle", f"{name}, resident", resident[name], "MB") for name in daemons]
    rows += [Row("idle", f"{name}, of one CPU", share[name], "%") for name in daemons]
    aims = [
        Aim("daemon idle: resident", resident["sublet"], "MB", 90, most=True),
        Aim("daemon idle: of one CPU", share["sublet"], "%", 0.5, most=True),
    ]
    return Findings(rows, aims)


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
