"""Virtual machines: booted, from a template, forked, woken; beside bare QEMU.

A start is timed until the first output of a command that shows the machine's own host name. Bare
QEMU boots the same kernel, initramfs, machine and image, and runs the same command.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from bench.bare_machine import BareMachine, bare_machine
from bench.engines import IMAGE
from bench.lab import Lab
from bench.measure import Aim, Findings, Row, measure, ratio, rows, sample
from sublet.sdk import Client, Instance
from sublet.sdk.results import instance_spec

MIB = 1 << 20
MEMORY, CLONES, CLONE_MEMORY = 256 * MIB, 50, 128 * MIB
NAME = ("cat", "/proc/sys/kernel/hostname")
HELD = 32
"""MiB of a program's memory that forks and hibernation take along."""
PROGRAM = f"open F, '/dev/urandom'; read F, $a, {HELD << 20}; $| = 1; print qq(up\\n); sleep 1e6"


def run(lab: Lab) -> Findings:
    """Starts, exec, what takes memory along, and many at once; nothing is left at the end."""
    if not lab.has("qemu"):
        return Findings([], [])
    with bare_machine(lab, MEMORY) as bare:
        found = [_starts(lab, bare)]
    found += [_execs(lab), _memories(lab), _clones(lab)]
    left = lab.client.ps(all=True), lab.client.audit()
    aims = [aim for each in found for aim in each.aims]
    aims.append(Aim("VMs: left behind", len(left[0]) + len(left[1]), "things", 0, most=True))
    return Findings([row for each in found for row in each.rows], aims)


def _starts(lab: Lab, bare: BareMachine) -> Findings:
    """Bare QEMU, a boot, a template, and a container, in turn."""
    client = lab.client
    booted, template, container = "VM, booted", "VM, from a template", "container"
    timings = sample(
        {
            "bare QEMU": lambda: bare.first_output(*NAME)[0],
            booted: lambda: _first_output(client, vm=True, cold=True),
            template: lambda: _first_output(client, vm=True),
            container: lambda: _first_output(client),
        },
        lab.rounds,
        warm_up=1,  # which makes the template
    )
    aims = ratio("VM, booted: times bare QEMU", timings, booted, "bare QEMU", 1.3, most=True)
    start = timings[template].median
    aims.append(Aim("VM, from a template, to its first output", start, "ms", 300, most=True))
    aims += ratio(
        "VM, from a template: part of a boot", timings, template, booted, 1 / 8, most=True
    )
    return Findings(rows("vm", timings), aims)


def _first_output(client: Client, **options: Any) -> float:
    """Milliseconds from the request until a new instance has written its own host name."""
    spec = instance_spec(IMAGE, NAME, memory=MEMORY, **options)
    begin = time.perf_counter()
    session, row = client.foreground(spec)
    try:
        message = session.receive()
        taken = (time.perf_counter() - begin) * 1000
    finally:
        session.close()
        client.remove(row["id"], force=True)
    if message != b"\x01" + row["id"].encode() + b"\n":
        raise RuntimeError(f"{row['id']} says that it is {message!r}")
    return taken


def _execs(lab: Lab) -> Findings:
    """`true` as a further process, in a VM and in a container."""
    with _idle(lab.client, vm=True) as machine, _idle(lab.client) as container:

        def once(instance: Instance) -> None:
            if instance.exec(["true"]).exit_code != 0:
                raise RuntimeError("true failed")

        peers = {
            "exec in a VM": lambda: once(machine),
            "exec in a container": lambda: once(container),
        }
        return Findings(rows("vm", measure(peers, lab.rounds)), [])


def _idle(client: Client, **options: Any) -> Instance:
    return client.run(IMAGE, ["sleep", "infinity"], memory=MEMORY, **options)


def _memories(lab: Lab) -> Findings:
    """A VM with a program that holds memory: forked as it runs, hibernated and woken."""
    client = lab.client
    with client.run(IMAGE, ["perl", "-e", PROGRAM], memory=MEMORY, vm=True) as machine:
        next(iter(client.logs(machine.id, follow=True)))  # it has its memory
        taken: dict[str, list[float]] = {}

        def timed(what: str, verb: Any) -> Any:
            begin = time.perf_counter()
            result = verb()
            taken.setdefault(what, []).append((time.perf_counter() - begin) * 1000)
            return result

        for _ in range(lab.rounds):
            fork = timed("fork with its memory, until exec", lambda: _forked(client, machine))
            client.remove(fork, force=True)
            timed("hibernate", lambda: client.hibernate(machine.id))
            timed("wake, until exec", lambda: _woken(client, machine))
    found = []
    for what, values in taken.items():
        note = f"longest {max(values):.1f} ms, with {HELD} MiB in use"
        found.append(Row("vm", what, median(values), "ms", note))
    return Findings(found, [])


def _forked(client: Client, machine: Instance) -> str:
    """A fork that goes on from the machine's memory, and has executed something; its id."""
    made = client.fork_of(machine.id)["id"]
    said = client.exec(made, NAME).stdout.strip()
    if said != made:
        raise RuntimeError(f"the fork {made} says that it is {said!r}")
    return str(made)


def _woken(client: Client, machine: Instance) -> None:
    client.wake(machine.id)
    if client.exec(machine.id, ["true"]).exit_code != 0:
        raise RuntimeError("true failed")


def _clones(lab: Lab) -> Findings:
    """All at once from one template, until each has said its own name; then their memory."""
    client = lab.client
    client.output(IMAGE, ["true"], memory=CLONE_MEMORY, vm=True)  # makes the template
    with ThreadPoolExecutor(CLONES) as pool:
        begin = time.perf_counter()
        made = list(pool.map(lambda _: _answered(client), range(CLONES)))
        taken = time.perf_counter() - begin
        seen = list(pool.map(lambda instance: client.footprint(instance.id), made))
        begin = time.perf_counter()
        list(pool.map(lambda instance: instance.remove(force=True), made))
        removed = time.perf_counter() - begin
    each = median(found["memory"] for found in seen) / MIB
    common = {key: size for found in seen for key, size in found["shared_memory"].items()}
    shared = sum(common.values()) / MIB
    found = [
        Row("vm", f"{CLONES} at once, all answered", taken, "s", f"{CLONES / taken:.1f} a second"),
        Row("vm", f"{CLONES} removed", removed, "s", f"{CLONES / removed:.1f} a second"),
        Row("vm", "memory per clone", each, "MB", f"once for all {shared:.0f} MB"),
    ]
    aims = [
        Aim("memory per template VM beyond the first", each, "MB", 60, most=True),
        Aim(f"{CLONES} VMs at once: answered by name", len(made), "VMs", CLONES, most=False),
    ]
    return Findings(found, aims)


def _answered(client: Client) -> Instance:
    """A VM that has executed something."""
    made = client.run(IMAGE, ["sleep", "infinity"], memory=CLONE_MEMORY, vm=True)
    said = made.exec(NAME).stdout.strip()
    if said != made.id:
        raise RuntimeError(f"{made.id} says that it is {said!r}")
    return made
