"""What an instance takes of its host: memory and disk, its own and shared with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes. `memory` is the proportional set size of the instance's `processes`, its supervisor
    and, of a VM, QEMU among them; `disk` what its files take.

    `shared_memory` and `shared_disk` are what is there once for all that have it: the template
    that VMs go on from, the image; by a name that is the same for whoever has the same.
    """

    processes: int
    memory: int
    disk: int
    shared_memory: Mapping[str, int]
    shared_disk: Mapping[str, int]
