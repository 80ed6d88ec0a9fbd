"""What a VM may ask for."""

from dataclasses import replace

import pytest

from sublet.domain.change import Change, changed, divided, next_size, settled
from sublet.domain.errors import InvalidArgument
from sublet.domain.instance import Instance, State
from sublet.domain.machine import boots, vcpus
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


def test_a_stopped_vm_has_its_next_size() -> None:
    assert settled(running()) == running()
    row = settled(running(next_cpus=2.0, next_memory=GIB))
    assert (row.spec.cpus, row.spec.memory, row.spec.disk) == (2, GIB, VM.disk)
    assert not next_size(row)


def test_a_disk_does_not_shrink() -> None:
    with pytest.raises(InvalidArgument, match="smaller"):
        changed(replace(VM, disk=2 * GIB), Change(disk=GIB))
