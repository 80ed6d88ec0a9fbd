"""QEMU's command line, its supervisor's, and what a machine's memory is mapped from."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from sublet.domain.errors import StartFailed, WrongState
from sublet.domain.spec import LogConfig
from sublet.drivers.cgroup import Entrances
from sublet.drivers.vm import equipment, qemu
from sublet.drivers.vm.mapping import largest
from sublet.drivers.vm.qemu import Drive, Hardware
from sublet.drivers.vm.supervisor import Supervision, supervisor_argv

BOOTS = Hardware(
    acceleration="tcg",
    memory=256 << 20,
    vcpus=2,
    ram=4,
    firmware=12,
    kernel=5,
    initramfs=6,
    nics=((7, "02:53:0a:01:00:02"),),
    drives=(
        Drive(8, "image", read_only=True, offset=36864, length=1 << 20),
        Drive(9, "modules", read_only=True),
        Drive(10, "disk"),
        Drive(11, "vol0", read_only=True),
    ),
)


def after(argv: list[str], option: str) -> list[str]:
    """The values of an option that may be given several times."""
    return [value for name, value in itertools.pairwise(argv) if name == option]


def test_a_machine_that_boots() -> None:
    argv = qemu.argv(BOOTS)
    assert argv[:5] == [qemu.PROGRAM, "-nodefaults", "-no-user-config", "-display", "none"]
    assert after(argv, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]
    assert after(argv, "-object") == [
        "memory-backend-file,id=ram,mem-path=/proc/self/fd/4,size=268435456,share=off,"
        "prealloc=off,merge=off,dump=off",
        "rng-builtin,id=entropy",
    ]
    assert after(argv, "-m") == ["size=268435456B,slots=12,maxmem=17448304640B"]
    assert after(argv, "-smp") == ["2,maxcpus=8"]
    assert "swiotlb=noforce memhp_default_state=online" in after(argv, "-append")[0]
    assert after(argv, "-kernel") == ["/proc/self/fd/5"]
    assert after(argv, "-initrd") == ["/proc/self/fd/6"]
    assert after(argv, "-netdev") == ["tap,id=net0,fd=7"]
    assert after(argv, "-global") == [
        "migration.send-configuration=off",
        "migration.store-global-state=off",
    ]
    assert "-no-reboot" in argv
    assert "-incoming" not in argv


def test_devices_have_fixed_places() -> None:
    assert after(qemu.argv(BOOTS), "-device") == [
        "pvpanic-pci,addr=0x01",
        "virtio-rng-pci,addr=0x02,rng=entropy",
        "virtio-serial-pci,addr=0x03,id=ports,max_ports=2",
        "virtserialport,bus=ports.0,chardev=agent,name=sublet.agent",
        "virtio-net-pci,addr=0x04,netdev=net0,mac=02:53:0a:01:00:02,romfile=",
        "virtio-blk-pci,addr=0x0c,drive=image,serial=image",
        "virtio-blk-pci,addr=0x0d,drive=modules,serial=modules",
        "virtio-blk-pci,addr=0x0e,drive=disk,serial=disk",
        "virtio-blk-pci,addr=0x0f,drive=vol0,serial=vol0",
    ]
    assert 0x04 + qemu.MOST_NICS <= 0x0C
    assert 0x0C + qemu.MOST_DISKS <= 0x1F - 1, "the chipset is at 0x1f"


def test_disks_are_descriptors() -> None:
    argv = qemu.argv(BOOTS)
    assert after(argv, "-add-fd") == [f"fd={n},set={n}" for n in (12, 8, 9, 10, 11)]
    _, image, _, disk, volume = map(json.loads, after(argv, "-blockdev"))
    assert image == {
        "driver": "raw",
        "node-name": "image",
        "file": {
            "driver": "file",
            "filename": "/dev/fdset/8",
            "read-only": True,
            "locking": "off",
        },
        "offset": 36864,
        "size": 1 << 20,
        "read-only": True,
    }
    assert disk == {
        "driver": "raw",
        "node-name": "disk",
        "file": {"driver": "file", "filename": "/dev/fdset/10", "discard": "unmap"},
        "discard": "unmap",
    }
    assert volume["read-only"] is True


def test_a_disk_image_lies_below_what_is_written() -> None:
    image = Drive(8, "image", True, "qcow2", 36864, 4096)
    disk = Drive(9, "disk", format="qcow2", backing=image)
    argv = qemu.argv(Hardware("tcg", 1 << 28, 1, 4, 12, 5, 6, (), (disk,)))
    assert after(argv, "-add-fd") == ["fd=12,set=12", "fd=9,set=9", "fd=8,set=8"]
    _, below, above = map(json.loads, after(argv, "-blockdev"))
    assert (below["node-name"], below["driver"], below["backing"]) == (
        *("disk-backing", "qcow2", None),
    )
    assert (below["file"]["driver"], below["file"]["offset"]) == ("raw", 36864)
    assert below["read-only"] is below["file"]["read-only"] is True
    assert above["backing"] == "disk-backing"
    assert "virtio-blk-pci,addr=0x0c,drive=disk,serial=disk" in argv
    assert not any("serial=image" in word for word in argv)


def test_a_restored_machine_has_no_kernel_to_load() -> None:
    restored = Hardware("tcg", 1 << 28, 1, 4, 12, -1, -1, (), (), incoming=5)
    argv = qemu.argv(restored)
    assert "-kernel" not in argv
    assert after(argv, "-incoming") == ["fd:5"]
    (firmware,) = map(json.loads, after(argv, "-blockdev"))
    assert (firmware["node-name"], firmware["read-only"]) == ("firmware", True)
    assert ",pflash0=firmware," in after(argv, "-machine")[0], "a restart would find no firmware"
    rebooting = Hardware("tcg", 1 << 28, 1, 4, 12, 6, 7, (), (), incoming=5, reboots=True)
    argv = qemu.argv(rebooting)
    assert "-no-reboot" not in argv
    assert after(argv, "-kernel") == ["/proc/self/fd/6"]


def test_a_host_without_the_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equipment, "FIRMWARE", (Path("/nowhere/bios"),))
    with pytest.raises(StartFailed) as failed:
        equipment.firmware()
    assert failed.value.hint == "Install the package seabios."


@pytest.mark.parametrize(("kind", "cpu"), [("tcg", "max"), ("kvm", "host,migratable=off")])
def test_acceleration(kind: str, cpu: str) -> None:
    argv = qemu.argv(Hardware(kind, 1 << 28, 1, 4, 12, 5, 6, (), ()))
    assert after(argv, "-cpu") == [cpu]
    assert after(argv, "-accel")[0].startswith(kind)


def supervision(**changes: object) -> Supervision:
    own, inner = Entrances(("/c/own",), "/u/own"), Entrances(("/c/in",), "/u/in")
    usual: dict[str, object] = {
        "directory": Path("/run/x"),
        "log_file": Path("/root/x/log"),
        "log": LogConfig(),
        "own_cgroups": own,
        "cgroups": inner,
        "uid": 100000,
        "kvm": False,
        "console": False,
        "restored": False,
        "runs": False,
    }
    return Supervision(**{**usual, **changes})  # type: ignore[arg-type]


def test_the_supervisor_of_a_machine() -> None:
    argv = supervisor_argv(supervision(), 2, ["/usr/bin/qemu", "-x"])
    assert argv[0].endswith("/libexec/sublet-machine")
    assert argv[1:] == [
        *("--directory=/run/x", "--uid=100000", "--log=/root/x/log", "--log-size=10485760"),
        *("--log-files=3", "--own-cgroup=/c/own", "--cgroup=/c/in", "--own-tree=/u/own"),
        *("--tree=/u/in", "--deadline=120", "--fd=4", "--fd=5", "--", "/usr/bin/qemu", "-x"),
    ]


def test_what_a_machine_is_restored_from_decides_what_is_waited_for() -> None:
    template = supervisor_argv(supervision(restored=True), 0, [])
    assert "--ready" in template
    assert "--resumed" not in template
    assert not any(word.startswith("--deadline") for word in template)
    woken = supervisor_argv(supervision(restored=True, runs=True), 0, [])
    assert "--resumed" in woken
    quiet = supervisor_argv(
        supervision(log=LogConfig(driver="none"), kvm=True, console=True), 0, []
    )
    assert not any(word.startswith("--log") for word in quiet)
    assert {"--kvm", "--console-output"} <= set(quiet)


MAPS = """\
5581cc000000-5581cc100000 r--p 00000000 08:01 77 /usr/bin/qemu-system-x86_64
7f0000000000-7f0004000000 rw-p 00000000 00:00 0
7f0010000000-7f0014000000 rw-p 00000000 00:01 4242 /memfd:sublet-template (deleted)
7f0014000000-7f0020000000 rw-p 04000000 00:01 4242 /memfd:sublet-template (deleted)
7f0030000000-7f0030010000 rw-p 00000000 08:01 99 /usr/lib/libc.so.6
"""


def test_memory_is_found_by_its_size() -> None:
    assert largest(MAPS, 0x10000000) == 4242, "in two parts"
    with pytest.raises(WrongState, match="no memory"):
        largest(MAPS, 0x4000000)
