"""What is mounted for one instance: its root, and what it shows of this host."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sublet.domain.errors import HostUnsupported, InvalidArgument
from sublet.domain.mounts import Mount, MountType, in_order
from sublet.drivers import linux, mount
from sublet.drivers.container.places import Places
from sublet.drivers.container.rootfs import Root
from sublet.drivers.descriptors import closing, opened


async def root(at: Places, lower: Path, uid_base: int, limit: int) -> None:
    """The image with mapped ids, and over it the writable layer that the mapped root owns."""
    at.state.mkdir(mode=0o700, exist_ok=True)
    mapped = at.mounts / "lower"
    for directory in (mapped, at.rootfs):
        directory.mkdir(mode=0o755, exist_ok=True)
    layer = await at.writable.show(at.instance_id, lower, uid_base, limit)
    try:
        _overlay(at, str(lower), mapped, layer, at.rootfs)
    except OSError as error:
        if str(lower) != "/":
            raise
        raise _unfit("/", error) from error


def binds(at: Places, mounts: Iterable[Mount], uid_base: int) -> tuple[Mount, ...]:
    """Volumes and directories of this host with ids mapped, so that root inside is root outside;
    an outer one before those that lie in it."""
    ordered = enumerate(in_order(mounts))
    return tuple(_bind(at, number, bind, uid_base) for number, bind in ordered)


def volumes(at: Places, mounts: Iterable[Mount], uid_base: int) -> None:
    """Volumes and binds in the mounted root of an instance that does not run."""
    with Root(at.rootfs, uid_base) as root:
        for number, bind in enumerate(in_order(mounts)):
            if bind.type is MountType.TMPFS:
                continue
            source = _bind(at, number, bind, uid_base).source
            directory = os.path.isdir(source)
            with closing(root.mount_point(bind.destination, directory=directory)) as fd:
                mount.bind(source, f"/proc/self/fd/{fd}")


def file(at: Places, name: str, text: str, uid_base: int, *, read_only: bool) -> Mount:
    """A file of the instance's own in /etc."""
    path = at.mounts / name
    path.write_text(text)
    os.chown(path, uid_base, uid_base)
    os.chmod(path, 0o644)
    return Mount(str(path), f"/etc/{name}", read_only)


def sysfs(at: Places, namespace: Path | None) -> Path:
    """A sysfs that shows the interfaces of a network namespace which belongs to others, None: the
    host's; the container itself may not mount that (sysfs belongs to a network namespace's
    owner)."""
    target = at.mounts / "sys"
    target.mkdir(exist_ok=True)
    with (
        opened(namespace or Path("/proc/self/ns/net")) as fd,
        linux.entered(fd, linux.CLONE_NEWNET, "net"),
    ):
        mount.sysfs(target)
    return target


def _bind(at: Places, number: int, bind: Mount, uid_base: int) -> Mount:
    if bind.type is MountType.TMPFS:
        return bind
    source = Path(bind.source)
    if not source.exists():
        raise InvalidArgument(
            f"{bind.source} does not exist on this host.", hint="Create it, or mend the path."
        )
    target = at.mounts / f"bind{number}"
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    if bind.cow:
        _copy_on_write(at, bind, target, uid_base)
        return replace(bind, source=str(target))
    try:
        mount.bind_idmapped(
            bind.source, str(target), str(at.user_namespace), read_only=bind.read_only
        )
    except OSError as error:
        raise HostUnsupported(
            f"{bind.source} cannot be mounted with mapped ids: {error.strerror}.",
            hint="Use a directory on ext4, xfs, btrfs or tmpfs.",
        ) from error
    return replace(bind, source=str(target))


def _copy_on_write(at: Places, bind: Mount, target: Path, uid_base: int) -> None:
    """Show the host's directory at `target`, under what the instance itself writes there."""
    if not target.is_dir():
        raise InvalidArgument(
            f"{bind.source} is a file; only a directory can be mounted copy-on-write.",
            hint="Mount the directory that holds it.",
        )
    mapped = target.with_name(f"{target.name}.lower")
    mapped.mkdir(exist_ok=True)
    shown = at.layer.shown
    layer = at.writable.show_cow(shown, bind.destination, Path(bind.source), uid_base)
    try:
        _overlay(at, bind.source, mapped, layer, target)
    except OSError as error:
        raise _unfit(bind.source, error) from error


def _overlay(at: Places, lower: str, mapped: Path, layer: Path, target: Path) -> None:
    """`lower`, with ids mapped at `mapped` meanwhile, and over it `upper` of the layer."""
    mount.bind_idmapped(lower, str(mapped), str(at.user_namespace), read_only=True)
    mount.overlay(str(mapped), layer / "upper", layer / "work", target)
    mount.unmount(str(mapped))  # the overlay keeps a copy of its own


def _unfit(source: str, error: OSError) -> HostUnsupported:
    """A directory of the host cannot lie under an overlay with mapped ids."""
    if error.errno == errno.ELOOP:
        return HostUnsupported(
            f"{source} cannot be mounted copy-on-write: it holds what Sublet itself writes to.",
            hint="Add --disk 10g: what is written has a disk of its own then.",
        )
    return HostUnsupported(
        f"{source} cannot be mounted copy-on-write: {error.strerror}.",
        hint="Use a directory on ext4, xfs, btrfs or tmpfs; or mount it :ro.",
    )
