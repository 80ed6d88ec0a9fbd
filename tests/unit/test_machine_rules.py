"""What a VM may ask for."""

from dataclasses import replace

import pytest

from sublet.domain.errors import InvalidArgument
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
