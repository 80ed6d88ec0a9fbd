"""What a VM may ask for."""

import itertools
from dataclasses import replace

import pytest

from sublet.domain.change import Change, changed, divided, next_size, postponed, settled
from sublet.domain.errors import InvalidArgument
from sublet.domain.instance import Instance, State
from sublet.domain.machine import MODULES, Room, booted, boots, modules, most_vcpus, vcpus
from sublet.domain.mounts import Mount, MountType
from sublet.domain.privileges import Device
from sublet.domain.size import Size
from sublet.domain.spec import InstanceSpec, Isolation, check_spec
from sublet.domain.units import GIB, MIB

VM = InstanceSpec(image="debian", isolation=Isolation.VM, cpus=1, memory=256 * MIB)


@pytest.mark.parametrize(
    "change",
    [
        {"memory": 64 * MIB},
        {"cpus": 65},
        {"mounts": (Mount("/srv", "/srv"),)},
        {"devices": (Device("/dev/fuse", "/dev/fuse", "rwm"),)},
        {"cap_add": ("NET_ADMIN",)},
        {"seccomp": "unconfined"},
        {"network": "host"},
        {"network": "container:0123456789ab"},
    ],
)
def test_what_a_vm_cannot_have(change: dict[str, object]) -> None:
    spec = replace(VM, **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="VM") as caught:
        check_spec(spec)
    if "cpus" not in change:
        assert caught.value.hint


def test_what_a_vm_can_have() -> None:
    check_spec(VM)
    volume = Mount("data", "/data", type=MountType.VOLUME)
    check_spec(replace(VM, mounts=(volume,), network="back", memory=2 * GIB, read_only=True))


@pytest.mark.parametrize(("cpus", "seen"), [(0.05, 1), (1, 1), (1.5, 2), (4, 4)])
def test_a_guest_sees_whole_cpus(cpus: float, seen: int) -> None:
    assert vcpus(Size(cpus, GIB, 0)) == seen


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("/sbin/init",), True),
        (("/lib/systemd/systemd", "--unit=rescue.target"), True),
        (("/usr/lib/systemd/systemd",), True),
        (("init",), False),
        (("/opt/app/init",), False),
        (("/usr/bin/postgres",), False),
        ((), False),
    ],
)
def test_an_init_system_boots_a_whole_machine(args: tuple[str, ...], expected: bool) -> None:
    assert boots(args) is expected


def running(**changes: float) -> Instance:
    row = Instance("0" * 12, "a", "i", "d", VM, 1, State.RUNNING, 0.0)
    return replace(row, **changes)  # type: ignore[arg-type]


def test_what_a_running_vm_gets_now_and_what_later() -> None:
    now, row = divided(running(), Change(cpus=0.5, memory=GIB, disk=2 * GIB))
    assert now == Change(cpus=0.5), "it has that many CPUs"
    assert next_size(row) == "1.0 GiB of memory, 2.0 GiB of disk"
    now, row = divided(running(), Change(cpus=2, ttl=60))
    assert now == Change(ttl=60)
    assert next_size(row) == "2 vCPUs"
    assert divided(row, Change(cpus=1)) == (Change(cpus=1), running()), "taken back"


ROOM = Room(vcpus=1, most_vcpus=4, memory=256 * MIB, most_memory=GIB)


def test_a_running_vm_grows_as_far_as_there_is_room() -> None:
    change = Change(cpus=2.5, memory=512 * MIB)
    assert divided(running(), change, ROOM) == (change, running()), "all of it now"
    now, row = divided(running(), Change(cpus=6, memory=500 * MIB), ROOM)
    assert now == Change(cpus=4, memory=384 * MIB), "whole blocks, and the CPUs that are possible"
    assert next_size(row) == "6 vCPUs, 500.0 MiB of memory"
    now, row = divided(running(), Change(memory=4 * GIB), ROOM)
    assert (now, next_size(row)) == (Change(memory=GIB), "4.0 GiB of memory")
    full = replace(ROOM, vcpus=4, memory=GIB)
    change = Change(cpus=5, memory=2 * GIB)
    now, row = divided(running(), change, full)
    assert (now, next_size(row)) == (None, "5 vCPUs, 2.0 GiB of memory")


def test_nothing_is_taken_out_of_a_running_vm() -> None:
    big = running()
    big = replace(big, spec=replace(VM, cpus=4, memory=GIB))
    room = Room(4, 4, GIB, 16 * GIB)
    now, row = divided(big, Change(cpus=2, memory=512 * MIB), room)
    assert (now, next_size(row)) == (None, "2 vCPUs, 512.0 MiB of memory")
    assert divided(row, Change(cpus=4, memory=GIB), room) == (Change(cpus=4), big), "taken back"
    assert divided(big, Change(cpus=3.5), room) == (Change(cpus=3.5), big), "a limit alone"


def test_what_a_guest_has_not_taken_is_noted() -> None:
    row = replace(running(), spec=replace(VM, cpus=2, memory=512 * MIB))
    row = postponed(row, VM, row.spec)
    assert next_size(row) == "2 vCPUs, 512.0 MiB of memory"
    row = replace(running(next_memory=GIB), spec=replace(VM, memory=512 * MIB))
    row = postponed(row, VM, row.spec)
    assert next_size(row) == "1.0 GiB of memory", "more is to come"
    assert settled(row).spec == replace(VM, memory=GIB)


@pytest.mark.parametrize(("booted", "most"), [(1, 4), (2, 8), (16, 64), (40, 64), (64, 64)])
def test_the_cpus_that_are_possible(booted: int, most: int) -> None:
    assert most_vcpus(booted) == most


def test_a_machine_has_whole_mib() -> None:
    assert booted(Size.parse("1x0.26")) == Size(1, 266 * MIB)
    assert booted(Size(1, GIB)) == Size(1, GIB)


def test_memory_comes_in_modules_that_prepare_for_the_next() -> None:
    assert modules(0) == ()
    assert modules(128 * MIB) == (128 * MIB,)
    assert modules(384 * MIB) == (128 * MIB, 256 * MIB)
    large = modules(16 * GIB)
    assert (len(large), sum(large)) == (MODULES, 16 * GIB)
    assert all(32 * size >= later for size, later in itertools.pairwise(large))


def test_a_stopped_vm_has_its_next_size() -> None:
    assert settled(running()) == running()
    row = settled(running(next_cpus=2.0, next_memory=GIB))
    assert (row.spec.cpus, row.spec.memory, row.spec.disk) == (2, GIB, VM.disk)
    assert not next_size(row)


def test_a_disk_does_not_shrink() -> None:
    with pytest.raises(InvalidArgument, match="smaller"):
        changed(replace(VM, disk=2 * GIB), Change(disk=GIB))
