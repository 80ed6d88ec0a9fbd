"""What a machine is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sublet.domain.size import Size
from sublet.domain.spec import LogConfig
from sublet.drivers.vm.kernels import Kernel
from sublet.drivers.vm.messages import Guest
from sublet.drivers.vm.shape import Shape


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that a guest finds by its serial number (at most 20 characters). `offset` and
    `length` in bytes cut it out of its file; a length of 0 is all of it."""

    file: Path
    serial: str
    read_only: bool = False
    format: str = "raw"
    offset: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine. `uid` is the host's user that QEMU runs as, `acceleration` `kvm` or `tcg`.

    An `image` of the format qcow2 is no disk of its own, but what `disk`, a qcow2 too, is an
    overlay of. `taps` are descriptors that `Network.attach_tap` gave, in the order of the guest's
    interfaces; who asked for them closes them after the start. `cold`: without any template.
    """

    instance_id: str
    uid: int
    size: Size
    acceleration: str
    kernel: Kernel
    image: Disk
    disk: Disk
    guest: Guest
    shape: Shape
    volumes: tuple[Disk, ...] = ()
    taps: tuple[int, ...] = ()
    cold: bool = False
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def modules(self) -> Disk:
        """The kernel's modules."""
        return Disk(self.kernel.modules, "modules", read_only=True)
