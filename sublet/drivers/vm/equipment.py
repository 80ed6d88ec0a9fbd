"""The descriptors that a machine's QEMU works with, opened for its start."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from sublet.domain.errors import InvalidArgument, StartFailed
from sublet.drivers.descriptors import opened
from sublet.drivers.vm.memory import Source
from sublet.drivers.vm.messages import Mode
from sublet.drivers.vm.plan import Disk, MachinePlan
from sublet.drivers.vm.qemu import FIRST, MOST_DISKS, MOST_NICS, Drive, Hardware

FIRMWARE = tuple(
    Path("/usr/share", package, "bios-256k.bin") for package in ("seabios", "qemu", "qemu-kvm")
)
"""Where distributions have it."""


class Passed(ExitStack):
    """Descriptors for QEMU, in the order of their numbers there; its own are closed with it."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def lend(self, fd: int) -> int:
        """The number that a descriptor, which stays the caller's, will have."""
        self.descriptors.append(fd)
        return FIRST + len(self.descriptors) - 1

    def open(self, file: Path, *, read_only: bool) -> int:
        """The number that a file will have."""
        flags = os.O_RDONLY if read_only else os.O_RDWR
        return self.lend(self.enter_context(opened(file, flags)))


def equip(plan: MachinePlan, source: Source | None, passed: Passed) -> Hardware:
    """The machine of the plan, whose memory goes on from `source`, or is empty.

    Raises InvalidArgument for more than fits, OSError for a file that is not there.
    """
    disks = [plan.modules, plan.disk, *plan.volumes]
    if plan.image.format == "raw":
        disks.insert(0, plan.image)
    if len(disks) > MOST_DISKS or len(plan.taps) > MOST_NICS:
        raise InvalidArgument(
            f"A VM has room for {MOST_DISKS - 3} volumes and {MOST_NICS} networks.",
            hint="Take some off.",
        )
    boots = source is None or plan.guest.mode is Mode.INIT
    cards = (nic.mac for nic in plan.guest.identity.nics)
    return Hardware(
        acceleration=plan.acceleration,
        memory=plan.size.memory,
        vcpus=plan.shape.vcpus,
        ram=passed.lend(source.memory) if source else _empty(passed),
        firmware=passed.open(firmware(), read_only=True),
        kernel=passed.open(plan.kernel.vmlinuz, read_only=True) if boots else -1,
        initramfs=passed.open(plan.kernel.initramfs, read_only=True) if boots else -1,
        nics=tuple((passed.lend(tap), mac) for tap, mac in zip(plan.taps, cards, strict=True)),
        drives=tuple(_drive(plan, disk, passed) for disk in disks),
        incoming=passed.lend(source.devices) if source else -1,
        reboots=plan.guest.mode is Mode.INIT,
    )


def _empty(passed: Passed) -> int:
    """What memory is mapped from that is empty at first: private pages of /dev/zero are the
    process's own, where a hole of a file would first become a page of the file's."""
    return passed.open(Path("/dev/zero"), read_only=False)


def firmware() -> Path:
    """What a PC executes first. Raises StartFailed."""
    for file in FIRMWARE:
        if file.exists():
            return file
    raise StartFailed("The firmware of VMs is not there.", hint="Install the package seabios.")


def _drive(plan: MachinePlan, disk: Disk, passed: Passed) -> Drive:
    """The disk, locked: the lock is the open file's, and goes with the last who has it."""
    backing = None
    if disk is plan.disk and plan.image.format != "raw":
        backing = _drive(plan, plan.image, passed)
    number = passed.open(disk.file, read_only=disk.read_only)
    try:
        kind = fcntl.LOCK_SH if disk.read_only else fcntl.LOCK_EX
        fcntl.flock(passed.descriptors[-1], kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StartFailed(
            f"The disk {disk.serial} is in use by another VM: two at once would destroy it.",
            hint="Stop the other one first, or give both the volume read-only.",
        ) from error
    return Drive(
        fd=number,
        serial=disk.serial,
        read_only=disk.read_only,
        format=disk.format,
        offset=disk.offset,
        length=disk.length,
        backing=backing,
    )
