"""Host memory that an idle container costs beyond its own process.

The proportional set size of what supervises it, what the daemons grew by, and what the kernel's
own memory (slab, stacks, page tables, per-CPU) grew by, each divided by the containers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.engines import IMAGE, NAME
from bench.host import kernel_memory, parent, pss, with_children
from bench.lab import Lab
from bench.measure import Aim, Findings, Row

COUNT = 50
MIB = 1 << 20


def run(lab: Lab) -> Findings:
    """Sublet, then Docker; idle first, then with containers."""
    client = lab.client
    client.output(IMAGE, ["true"])

    def start() -> tuple[list[int], Callable[[], None]]:
        made = [client.run(IMAGE, ["sleep", "infinity"], memory="32m") for _ in range(COUNT)]
        pids = [int(instance.inspect()["pid"]) for instance in made]

        def stop() -> None:
            for instance in made:
                instance.remove(force=True)

        return pids, stop

    rows = _cost("sublet", {lab.sublet.pid}, start)
    aims = [Aim("memory per idle container", rows[0].value, "MB", 2, most=True)]
    if lab.has("docker"):
        rows += _cost("docker", with_children(lab.docker.pid), lambda: _docker(lab))
    return Findings(rows, aims)


def _docker(lab: Lab) -> tuple[list[int], Callable[[], None]]:
    ids = [lab.docker("run", "-d", NAME, "sleep", "infinity").strip() for _ in range(COUNT)]
    pids = lab.docker("inspect", "--format", "{{.State.Pid}}", *ids).split()

    def stop() -> None:
        lab.docker("rm", "-f", *ids)

    return [int(pid) for pid in pids], stop


def _cost(
    name: str, daemons: set[int], start: Callable[[], tuple[list[int], Callable[[], None]]]
) -> list[Row]:
    before, kernel = sum(map(pss, daemons)), _settled()
    pids, stop = start()
    try:
        kernel = _settled() - kernel
        supervisors = {parent(pid) for pid in pids} - daemons - {0, 1}
        parts = {
            "supervisor": sum(map(pss, supervisors)),
            "daemon": sum(map(pss, daemons)) - before,
            "kernel": kernel,
        }
    finally:
        stop()
    each = {what: count / COUNT / MIB for what, count in parts.items()}
    note = ", ".join(f"{what} {amount:.2f}" for what, amount in each.items())
    return [Row("memory", f"{name}, per idle container", sum(each.values()), "MB", note)]


def _settled() -> int:
    """The kernel's memory, once what was freed just now is gone (RCU)."""
    time.sleep(2)
    return kernel_memory()
