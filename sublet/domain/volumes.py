"""Volumes: storage that outlives instances."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sublet.domain.mounts import Mount, MountType, is_anonymous

FORK = "io.sublet.fork"
"""The label of a volume that was copied for a fork, with whose id it goes."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Storage under a name. `id` names its directory, `size` the most bytes that it takes, 0: no
    limit; `created` in seconds since the epoch. `raw`: it is the disk of VMs, whose kernels write
    its file system; the host never mounts it."""

    name: str
    id: str
    created: float
    size: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False

    @property
    def anonymous(self) -> bool:
        """Whether it was made for one instance alone: by `-v /path`, or for an image's VOLUME."""
        return is_anonymous(self.name)

    def copied_for(self, instance_id: str) -> Volume:
        """The volume, which is a copy that was made for a fork and goes with it."""
        return replace(self, labels={**self.labels, FORK: instance_id})

    def goes_with(self, instance_id: str) -> bool:
        """Whether it was copied for that fork: nobody has asked for it."""
        return self.anonymous and self.labels.get(FORK) == instance_id


def names_of(mounts: Iterable[Mount]) -> list[str]:
    """The volumes that the mounts use, each once."""
    found = [mount.source for mount in mounts if mount.type is MountType.VOLUME and mount.source]
    return list(dict.fromkeys(found))


def renamed(mounts: Iterable[Mount], names: Mapping[str, str]) -> tuple[Mount, ...]:
    """The mounts with other volumes in place of those that `names` has."""
    return tuple(
        replace(mount, source=names[mount.source])
        if mount.type is MountType.VOLUME and mount.source in names
        else mount
        for mount in mounts
    )


def removable(
    volumes: Iterable[Volume], used: Collection[str], *, everything: bool
) -> list[Volume]:
    """What a prune removes: volumes that no instance has, those that somebody named only where
    `everything` is meant."""
    return [v for v in volumes if v.name not in used and (everything or v.anonymous)]
