"""The writable layers of instances: what they change lies here, over their image.

`<pool>/instances/<id>` holds a layer, as directories of the pool, or where the instance has a
limited disk as `disk.img`, which is mounted at `RUN/mnt/<id>/disk` while it is shown.

Files have the host ids of the instance that the layer was made for. A fork's layer is a copy
that shares its blocks, so that nothing in it is rewritten: it is shown with ids mapped once more,
at `RUN/mnt/<id>/layer`.

What it writes to directories of the host that it has copy-on-write lies beside its layer, in
`cow/<name of the place>/upper`, with the same ids.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import WrongState
from sublet.drivers import files, limited, mount, namespaces
from sublet.drivers.pool import Pool

_NOBODY = 65534
"""Who owns, inside, what belongs to nobody that an instance knows."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Where the layer of one instance is: at rest, and while it is shown."""

    directory: Path
    mounts: Path

    @property
    def image(self) -> Path:
        """The file of a limited disk, where there is one."""
        return self.directory / "disk.img"

    @property
    def disk(self) -> Path:
        """Where the limited disk is mounted."""
        return self.mounts / "disk"

    @property
    def shifted(self) -> Path:
        """Where a fork's layer is shown with its own ids."""
        return self.mounts / "layer"

    @property
    def stored(self) -> Path:
        """What holds `upper` and `work`, with the ids that are stored."""
        return self.disk if self.image.exists() else self.directory

    @property
    def upper(self) -> Path:
        """The layer itself as the running instance's own ids see it."""
        return self.shown / "upper"

    @property
    def shown(self) -> Path:
        """What holds `upper` and `work`, with the ids of the running instance."""
        return self.shifted if self.shifted.exists() else self.stored


def cow(holder: Path, destination: str) -> Path:
    """What holds `upper` and `work` of the copy-on-write mount at `destination`, below what holds
    those of the instance's layer."""
    return holder / "cow" / hashlib.sha256(destination.encode()).hexdigest()[:16]


class WritableLayers:
    """The writable layers of one daemon's instances."""

    def __init__(self, pool: Pool, mounts: Path) -> None:
        self.pool, self.mounts = pool, mounts

    @property
    def directory(self) -> Path:
        """What holds all of them."""
        return self.pool.directory / "instances"

    def layer(self, instance_id: str) -> Layer:
        """The instance's layer; one from before there was a pool stays where it is."""
        early = self.pool.root / "instances" / instance_id
        here = early if (early / "upper").exists() else self.directory / instance_id
        return Layer(here, self.mounts / instance_id)

    async def show(self, instance_id: str, lower: Path, uid_base: int, limit: int) -> Path:
        """Make the layer, unless there is one, and mount what it needs; the directory that has
        `upper` and `work`, with the ids of the instance. `limit`: the most bytes, 0: no limit."""
        at = self.layer(instance_id)
        at.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if limit and not (at.image.exists() or (at.directory / "upper").exists()):
            await limited.create(at.image, limit)
        if at.image.exists():
            await limited.mount(at.image, at.disk)
        upper = at.stored / "upper"
        (at.stored / "work").mkdir(mode=0o755, exist_ok=True)
        if not upper.exists():
            _begin(upper, lower, uid_base)
        return self._shifted(at, uid_base)

    @staticmethod
    def show_cow(holder: Path, destination: str, lower: Path, uid_base: int) -> Path:
        """Make the layer of a copy-on-write mount of the directory `lower`, unless there is one:
        the directory that has `upper` and `work`. `holder` is what `show` gave."""
        at = cow(holder, destination)
        for directory in (at.parent, at, at / "work"):
            directory.mkdir(mode=0o755, exist_ok=True)
        if not (at / "upper").exists():
            _begin(at / "upper", lower, uid_base)
        return at

    @staticmethod
    def _shifted(at: Layer, uid_base: int) -> Path:
        owner = (at.stored / "upper").stat().st_uid
        made_for = owner - (owner - uid_base) % namespaces.ID_COUNT
        if made_for == uid_base:
            return at.stored
        at.shifted.mkdir(mode=0o755, exist_ok=True)
        users = at.mounts / "shift"
        # The host's root, who makes what overlayfs needs for itself, stays who it is.
        namespaces.create(users, None, uid_base, inner=made_for, keep_root=True)
        mount.bind_idmapped(str(at.stored), str(at.shifted), str(users))
        return at.shifted

    async def grow(self, instance_id: str, limit: int) -> None:
        """Let the instance write `limit` bytes from now on, whether it runs or not.

        Raises WrongState where it was made without a limit, InvalidArgument for less.
        """
        at = self.layer(instance_id)
        if not at.image.exists():
            if not at.upper.exists():
                return  # it has not been started yet
            raise WrongState(
                "An instance that was made without --disk cannot be given one.",
                hint="Make a new one with --disk; `sublet commit` takes its files along.",
            )
        await limited.grow(at.image, limit)

    async def delete(self, instance_id: str) -> None:
        """Remove the layer. Idempotent."""
        await files.remove(self.layer(instance_id).directory)
        await files.remove(self.directory / instance_id)


def _begin(upper: Path, lower: Path, uid_base: int) -> None:
    """Make an empty upper layer that looks like what it is laid over."""
    origin = lower.stat()
    owners = (id if id < namespaces.ID_COUNT else _NOBODY for id in (origin.st_uid, origin.st_gid))
    uid, gid = owners
    fresh = upper.with_name("fresh")
    fresh.mkdir(mode=0o755, exist_ok=True)
    os.chmod(fresh, origin.st_mode & 0o7777)
    os.chown(fresh, uid_base + uid, uid_base + gid)
    fresh.rename(upper)  # only with the ids that tell whose it is
