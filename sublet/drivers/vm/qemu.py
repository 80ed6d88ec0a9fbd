"""QEMU's command line for one machine. Pure.

Whatever QEMU opens it has been given as a descriptor: its user may open next to nothing
(`machine/root.c`). The order of the devices and their places on the bus are part of every memory
image, so they are fixed here: `shape.PROTOCOL` counts up with each change.
Source: qemu-system-x86_64(1), docs/interop/live-block-operations.rst of QEMU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sublet.domain.machine import MEMORY_SLOTS, most_memory, most_vcpus

PROGRAM = "/usr/bin/qemu-system-x86_64"

FIRST = 4
"""The number of QEMU's first descriptor; 3 is the supervisor's connection."""

CODE_CACHE = 64
"""MiB that TCG keeps translated code in, dropped when it is full. A boot of a small guest fills 46
if it may; with 16 it takes as long, with 8 twice as long, the CPU's time measured. A clone that
has started a command has 12 to 26. A whole system's guests need more than the small ones."""

OVERHEAD = 192 << 20
"""Bytes that QEMU may need beside the guest's memory. Measured: 40 MB of its own with its copy of
the kernel, and the translated code; what is left is for the buffers of disks and network."""

PORT = "sublet.agent"
"""The name of the guest's end of its channel."""

# hpet, vmport and the like are left out for what a guest does not need; none of it costs or saves a
# measurable millisecond or megabyte. What does: no copy of the kernel in a machine that goes on
# (`Hardware`): 14 MB and 10 ms of 42; /dev/zero below the memory of one that boots: no page twice.
# Measured without effect: fewer malloc arenas, other CPU models, mitigations=off.
_MACHINE = {
    "graphics": "off",
    "usb": "off",
    "smbus": "off",
    "sata": "off",
    "vmport": "off",
    "hpet": "off",
    "memory-backend": "ram",
    "pflash0": "firmware",
    "dump-guest-core": "off",
    "suppress-vmdesc": "on",  # what QEMU 7.2 cannot load again
}
_SANDBOX = ("obsolete", "elevateprivileges", "spawn", "resourcecontrol")
_GROWS = "swiotlb=noforce memhp_default_state=online memory_hotplug.memmap_on_memory=1"
"""What makes a kernel take memory that is plugged in: at once, and with its page tables in it, for
what a small guest has would not hold them. Where memory may lie beyond 4 GiB one day, the kernel
keeps 64 MB for devices that do not reach it, unless it is told that there are none."""

_CLOCK = "tsc=reliable no_timer_check"
"""Both clocks are as good as the host's; the kernel need not find that out."""

_KERNEL = f"console=ttyS0 quiet panic=0 reboot=t {_CLOCK} net.ifnames=0 {_GROWS}"

_SLOTS = {"panic": 0x01, "rng": 0x02, "serial": 0x03, "nics": 0x04, "disks": 0x0C}
"""First places on the bus: for 8 interfaces, and 18 disks up to the chipset at 0x1f."""
MOST_NICS, MOST_DISKS = 8, 18


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk: `fd` is its descriptor. `backing`: what it is an overlay of, for qcow2."""

    fd: int
    serial: str
    read_only: bool = False
    format: str = "raw"
    offset: int = 0
    length: int = 0
    backing: Drive | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine, in descriptors, -1 for none: `memory` (bytes) is mapped privately from `ram`;
    `incoming` is the state of the devices of one that does not boot, but goes on. QEMU keeps a
    copy of the kernel (14 MB), which only a machine that boots, or `reboots` inside, needs."""

    acceleration: str
    memory: int
    vcpus: int
    ram: int
    firmware: int
    kernel: int
    initramfs: int
    nics: tuple[tuple[int, str], ...]
    """Taps and the addresses of the cards."""
    drives: tuple[Drive, ...]
    incoming: int = -1
    reboots: bool = False


def argv(machine: Hardware) -> list[str]:
    """The command line; @agent@, @console@ and @qmp@ are descriptors of the supervisor's."""
    words = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none"]
    words += sandbox()
    words += _firmware(machine.firmware)
    words += ["-machine", _options("q35", **_MACHINE)]
    words += [*_acceleration(machine.acceleration), "-smp", _vcpus(machine.vcpus)]
    words += _memory(machine) + _boot(machine)
    for name in ("send-configuration", "store-global-state"):
        words += ["-global", f"migration.{name}=off"]
    words += ["-device", _pci("pvpanic-pci", _SLOTS["panic"]), "-action", "panic=exit-failure"]
    words += channels()
    for number, (tap, mac) in enumerate(machine.nics):
        words += _nic(number, tap, mac)
    for number, drive in enumerate(machine.drives):
        words += _drive(number, drive)
    return words + (["-incoming", f"fd:{machine.incoming}"] if machine.incoming >= 0 else [])


def _options(first: str, **options: object) -> str:
    return ",".join((first, *(f"{name}={value}" for name, value in options.items())))


def _firmware(fd: int) -> list[str]:
    """A flash memory, which QEMU fills whenever it begins. The ROM that it takes without one it
    fills only where a machine boots: one that goes on from a memory image has nothing but zeros
    there, and its CPU would find no instruction when its guest restarts."""
    file = {"driver": "file", "filename": f"/dev/fdset/{fd}", "locking": "off"}
    node = {"driver": "raw", "node-name": "firmware", "file": file, "read-only": True}
    return ["-add-fd", f"fd={fd},set={fd}", "-blockdev", json.dumps(node)]


def _acceleration(kind: str) -> list[str]:
    if kind == "kvm":
        return ["-accel", "kvm", "-cpu", "host,migratable=off"]
    return ["-accel", f"tcg,thread=multi,tb-size={CODE_CACHE}", "-cpu", "max"]


def _memory(machine: Hardware) -> list[str]:
    backend = {"id": "ram", "mem-path": f"/proc/self/fd/{machine.ram}", "size": machine.memory}
    backend |= {"share": "off", "prealloc": "off", "merge": "off", "dump": "off"}
    size = {"slots": MEMORY_SLOTS, "maxmem": f"{most_memory(machine.memory)}B"}
    words = ["-m", _options(f"size={machine.memory}B", **size)]
    return [*words, "-object", _options("memory-backend-file", **backend)]


def _vcpus(booted: int) -> str:
    most = most_vcpus(booted)
    return str(booted) if most == booted else f"{booted},maxcpus={most}"


def _boot(machine: Hardware) -> list[str]:
    words = [] if machine.reboots else ["-no-reboot"]
    if machine.kernel < 0:
        return words
    words += ["-kernel", f"/proc/self/fd/{machine.kernel}"]
    return [*words, "-initrd", f"/proc/self/fd/{machine.initramfs}", "-append", _KERNEL]


def sandbox() -> list[str]:
    """QEMU's own filter of system calls."""
    return ["-sandbox", ",".join(("on", *(f"{what}=deny" for what in _SANDBOX)))]


def channels() -> list[str]:
    """Randomness, the guest's channel, its console, and QEMU's own monitor."""
    words = ["-object", "rng-builtin,id=entropy"]
    words += ["-device", _pci("virtio-rng-pci", _SLOTS["rng"], rng="entropy")]
    words += ["-chardev", "socket,id=agent,fd=@agent@"]
    words += ["-device", _pci("virtio-serial-pci", _SLOTS["serial"], id="ports", max_ports=2)]
    words += ["-device", _options("virtserialport", bus="ports.0", chardev="agent", name=PORT)]
    words += ["-chardev", "socket,id=console,fd=@console@", "-serial", "chardev:console"]
    words += ["-chardev", "socket,id=qmp,fd=@qmp@,server=on,wait=off"]
    return [*words, "-mon", "chardev=qmp,mode=control"]


def _pci(kind: str, slot: int, **options: object) -> str:
    return _options(kind, addr=f"{slot:#04x}", **options)


def _nic(number: int, tap: int, mac: str) -> list[str]:
    device = _pci(
        "virtio-net-pci", _SLOTS["nics"] + number, netdev=f"net{number}", mac=mac, romfile=""
    )
    return ["-netdev", _options("tap", id=f"net{number}", fd=tap), "-device", device]


def _drive(number: int, drive: Drive) -> list[str]:
    words = []
    for node in _nodes(drive.serial, drive):
        words += ["-blockdev", json.dumps(node)]
    fds = [each.fd for each in (drive, drive.backing) if each]
    added = [word for fd in fds for word in ("-add-fd", f"fd={fd},set={fd}")]
    device = _pci("virtio-blk-pci", _SLOTS["disks"] + number, drive=drive.serial)
    return [*added, *words, "-device", f"{device},serial={drive.serial}"]


def _nodes(name: str, drive: Drive) -> Iterator[dict[str, Any]]:
    """Block nodes, the lower ones first. One of several processes that open a file to write is
    refused by the lock that QEMU takes on it."""
    read_only = {"read-only": True} if drive.read_only else {"discard": "unmap"}
    file = {"driver": "file", "filename": f"/dev/fdset/{drive.fd}", **read_only}
    if drive.read_only:
        file["locking"] = "off"
    if drive.backing:
        yield from _nodes(f"{name}-backing", drive.backing)
    if drive.format == "raw":
        cut = {"offset": drive.offset, "size": drive.length} if drive.length else {}
        yield {"driver": "raw", "node-name": name, "file": file, **cut, **read_only}
        return
    if drive.length:
        cut = {"offset": drive.offset, "size": drive.length}
        file = {"driver": "raw", "file": file, **cut, **read_only}
    below = f"{name}-backing" if drive.backing else None
    node = {"driver": drive.format, "node-name": name, "file": file, "backing": below}
    yield {**node, **read_only}
