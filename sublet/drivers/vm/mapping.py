"""A machine's QEMU, and which file its guest's memory is mapped from."""

from __future__ import annotations

from pathlib import Path

from sublet.domain.errors import WrongState
from sublet.drivers.cgroup import Cgroups


def qemu(cgroups: Cgroups, instance_id: str) -> int:
    """The pid of the QEMU of an instance. Raises WrongState where there is none."""
    for pid in cgroups.pids(instance_id):
        return pid
    raise WrongState("The machine has ended.")


def memory_inode(pid: int, size: int) -> int:
    """The inode of the file of which QEMU, process `pid`, has `size` bytes of guest memory mapped
    privately. Raises WrongState where there is no such process any more."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text()
    except OSError as error:
        raise WrongState("The machine has ended.") from error
    return largest(text, size)


def largest(maps: str, size: int) -> int:
    """As `memory_inode`, of the text of that file (proc(5))."""
    mapped: dict[int, int] = {}
    for line in maps.splitlines():
        area, rights, _, _, inode, *_ = line.split()
        start, _, end = area.partition("-")
        if rights == "rw-p" and inode != "0":
            mapped[int(inode)] = mapped.get(int(inode), 0) + int(end, 16) - int(start, 16)
    for number, length in mapped.items():
        if length == size:
            return number
    raise WrongState("The machine has no memory that could be saved.")
