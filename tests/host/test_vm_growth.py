"""A running VM is given more CPUs and memory; what its guest does not take, it gets later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from conftest import Sublet, eventually
from vmhost import IMAGE, SMALL, qemu, row
from vmlab import Lab, make_image

from sublet.domain.config import Config
from sublet.domain.errors import WrongState
from sublet.domain.units import MIB
from sublet.drivers.cgroup import Cgroups
from sublet.drivers.vm import growing
from sublet.drivers.vm.qmp import Monitor, monitor

BLOCK = 126
"""MiB that a guest has of a block: its page tables are in it."""


def start(vm: Sublet, *flags: str, command: tuple[str, ...] = ("sleep", "infinity")) -> None:
    vm.ok("run", "-d", *SMALL, *flags, "--name", "box", IMAGE, *command)


def guest(vm: Sublet) -> tuple[int, int]:
    """How many CPUs it sees, and MiB of memory."""
    text = vm.ok("exec", "box", "sh", "-c", "nproc; grep MemTotal /proc/meminfo")
    cpus, _, kib, _ = text.split()
    return int(cpus), int(kib) // 1024


def size(vm: Sublet) -> tuple[float, int]:
    """What it is sold: vCPUs, and MiB of memory."""
    seen = vm.json("inspect", "box")["limits"]
    return float(seen["cpus"]), int(seen["memory"]) // MIB


def limit(vm: Sublet) -> int:
    """MiB that QEMU may take."""
    cgroups = Cgroups(Config(root=vm.root, run=vm.run_dir).identity)
    found = cgroups.directory("memory", str(row(vm, "box")["id"]))
    assert found
    names = ("memory.max", "memory.limit_in_bytes")
    (text,) = [(found / name).read_text() for name in names if (found / name).exists()]
    return int(text) // MIB


def ask(vm: Sublet, verb: Callable[[Monitor], Awaitable[object]]) -> None:
    """Say something to its QEMU past the daemon."""

    async def talk() -> None:
        async with monitor(vm.run_dir / "instances" / str(row(vm, "box")["id"])) as machine:
            await verb(machine)

    asyncio.run(talk())


def test_it_grows_while_it_runs(vm: Sublet) -> None:
    start(vm)
    pid, (_, before), allowed = qemu(vm, "box"), guest(vm), limit(vm)
    told = vm("update", "--cpus", "2.5", "--memory", "300m", "box")
    assert "box gets 300.0 MiB of memory when it starts again." in told.err, "128 at a time"
    assert size(vm) == (2.5, 256)
    cpus, memory = guest(vm)
    assert (cpus, memory - before) == (3, BLOCK)
    assert limit(vm) == allowed + 128
    assert vm("update", "--cpus", "4", "--memory", "512m", "box").err == ""
    assert guest(vm) == (4, memory + 2 * BLOCK)
    fill = "mount -o remount,size=1g /dev/shm; head -c 300m /dev/zero >/dev/shm/a"
    vm.ok("exec", "box", "sh", "-c", fill)
    assert qemu(vm, "box") == pid, "it was not started anew"
    told = vm("update", "--cpus", "5", "--memory", "128m", "box")
    assert "box gets 5 vCPUs, 128.0 MiB of memory when it starts again." in told.err
    for verb in (["hibernate", "box"], ["snapshot", "--memory", "box"], ["fork", "box"]):
        refused = vm(*verb)
        assert (refused.code, "until it starts again" in refused.err) == (1, True)
    assert guest(vm) == (4, memory + 2 * BLOCK), "and it goes on"
    assert vm("update", "--cpus", "2", "--memory", "256m", "box").code == 0
    vm.ok("restart", "-t", "0", "box")
    assert size(vm) == (2, 256)
    cpus, memory = guest(vm)
    assert (cpus, 128 < memory < 256) == (2, True), "it has booted with it"
    vm.ok("hibernate", "box")
    vm.ok("wake", "box")
    assert guest(vm) == (cpus, memory)
    vm.ok("update", "--cpus", "3", "box")
    assert guest(vm) == (3, memory), "also after it was woken"
    vm.ok("rm", "-f", "box")


@pytest.mark.slow
def test_a_system_that_reboots_keeps_what_it_was_given(vm: Sublet) -> None:
    vm.ok("run", "--rm", *SMALL, IMAGE, "true")
    start(vm, command=("/bin/init",))  # its memory is a template's
    pid = qemu(vm, "box")
    vm.ok("update", "--cpus", "2", "--memory", "256m", "box")
    cpus, memory = guest(vm)
    assert cpus == 2
    boot = vm.ok("exec", "box", "cat", "/proc/sys/kernel/random/boot_id")
    vm("exec", "box", "reboot")

    def again() -> bool:
        seen = vm("exec", "box", "cat", "/proc/sys/kernel/random/boot_id")
        return seen.code == 0 and seen.out.strip() != boot

    eventually(again, "it has rebooted", 60)
    assert guest(vm) == (2, pytest.approx(memory, abs=8))
    assert qemu(vm, "box") == pid, "the machine is the same"
    vm.ok("rm", "-f", "box")


def test_a_guest_that_does_not_answer_gets_it_later(vm: Sublet) -> None:
    start(vm)
    ask(vm, Monitor.stop)
    told = vm("update", "--cpus", "2", "--memory", "256m", "box")
    assert "box gets 2 vCPUs, 256.0 MiB of memory when it starts again." in told.err
    assert size(vm) == (1, 128)
    ask(vm, Monitor.resume)
    assert guest(vm)[0] == 1
    vm.ok("rm", "-f", "box")


def test_nothing_changes_where_qemu_refuses(vm: Sublet) -> None:
    start(vm)
    before, allowed = guest(vm), limit(vm)
    taken = {"qom-type": "memory-backend-ram", "id": "more0", "size": 128 * MIB}
    ask(vm, lambda machine: machine._execute("object-add", **taken))
    refused = vm("update", "--cpus", "2", "--memory", "300m", "box")
    assert refused.code == 1
    assert "QEMU refuses" in refused.err
    assert "starts again" not in vm("update", "--pids-limit", "99", "box").err, "nothing is noted"
    assert (size(vm), guest(vm), limit(vm)) == ((1, 128), before, allowed)
    vm.ok("rm", "-f", "box")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path, make_image(tmp_path))
    await made.up()
    yield made
    await made.down()


async def test_a_guest_that_takes_cpus_and_no_memory(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has booted without KVM: QEMU has no room for more CPUs' code at first."""
    plan = await lab.plan("sleep", "1000")
    await lab.start(plan)
    machines, name = lab.machines, plan.instance_id
    assert await machines.grow(name, 3, plan.size.memory) is True
    assert await lab.execute(plan, "nproc") == (0, "3\n")
    monkeypatch.setattr(growing, "TAKES", 1.0)
    assert (await lab.execute(plan, "umount", "-l", "/sys"))[0] == 0
    assert await machines.grow(name, 1, plan.size.memory + 128 * MIB) is False
    assert (await machines.room(name)).memory == plan.size.memory + 128 * MIB
    with pytest.raises(WrongState, match="until it starts again"):
        await machines.save(name, machines.place(name).store / "memory-image")
    await lab.ended_by_kill(plan)
