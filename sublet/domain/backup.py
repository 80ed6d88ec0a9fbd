"""Backups: copies of what instances wrote, in a repository that may be far from the host."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import MountType, normal
from sublet.domain.networks import Mode
from sublet.domain.ports import Port
from sublet.domain.retention import Keep, kept
from sublet.domain.spec import InstanceSpec, Isolation
from sublet.domain.volumes import Volume, renamed

VERSION = 1
"""Of the manifest; a reader refuses a newer one."""


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup, as `backups` lists it.

    `instance` is the id of what it was made of, `name` its name; `time` (seconds since the epoch)
    is the moment at which the files were as they are kept. `size` in bytes. `snapshot` is restic's
    id, empty while it is not `complete`; `missing` says then what has not arrived. `staged`: all of
    it lies on this host still, so that it can be completed. `manifest` is the SHA-256 of what this
    host wrote there, empty where another did.
    """

    id: str
    repository: str
    instance: str
    name: str
    time: float
    size: int = 0
    snapshot: str = ""
    complete: bool = False
    staged: bool = False
    missing: str = ""
    reason: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a backup. `place` is its directory there: `layer`, or `volumes/0`. `kind`:
    `files`, the `disk` of a VM, or `nothing` where there was none yet. `volume` is what it was."""

    place: str
    kind: str
    size: int = 0
    volume: Volume | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds besides files: how the instance was asked for, and of what image.
    `running`: it ran then. `paths`: it holds these alone."""

    instance: str
    name: str
    image: str
    digest: str
    spec: InstanceSpec
    time: float
    running: bool
    pieces: tuple[Piece, ...]
    user_data: str = ""
    paths: tuple[str, ...] = ()
    version: int = VERSION


def check_manifest(manifest: Manifest) -> None:
    """Raises InvalidArgument for one that no Sublet wrote: another host's is a stranger's."""
    places = [piece.place for piece in manifest.pieces]
    numbered = [f"volumes/{number}" for number in range(len(places) - 1)]
    kinds = {piece.kind for piece in manifest.pieces}
    sound = (
        manifest.version == VERSION
        and places == ["layer", *numbered]
        and kinds <= {"files", "disk", "nothing"}
        and all((piece.volume is None) == (piece.place == "layer") for piece in manifest.pieces)
        and all(piece.size >= 0 for piece in manifest.pieces)
        and _volumes(manifest) <= _mounted(manifest.spec)
    )
    if not sound:
        raise InvalidArgument(
            "What this backup says of itself is not what this Sublet writes.",
            hint="A newer Sublet may have made it; else see `sublet backup verify`.",
        )


def _volumes(manifest: Manifest) -> set[str]:
    return {piece.volume.name for piece in manifest.pieces if piece.volume}


def _mounted(spec: InstanceSpec) -> set[str]:
    return {mount.source for mount in spec.mounts if mount.type is MountType.VOLUME}


def foreign(manifest: Manifest, here: Collection[str]) -> list[str]:
    """What a backup wants of this host that is not in it, a phrase each: what `reaches` finds, and
    volumes of the names that are `here`, with what is in them."""
    own = (_mounted(manifest.spec) - _volumes(manifest)) & set(here)
    return reaches(manifest.spec) + [f"it mounts the volume {name}" for name in sorted(own)]


def reaches(spec: InstanceSpec) -> list[str]:
    """What of a request reaches into the host, a phrase each: what a stranger may not ask for."""
    found = [f"it mounts {mount.source}" for mount in spec.mounts if mount.type is MountType.BIND]
    found += ["it has this host's root file system"] if spec.root else []
    found += [f"it has the device {device.source}" for device in spec.devices]
    found += [f"it has the capability {name}" for name in spec.cap_add]
    if Mode.of(spec.network) in (Mode.HOST, Mode.CONTAINER):
        found.append(f"it is on the network {spec.network}")
    found += [f"it reaches port {port} of the host's loopback" for port in spec.host_ports]
    if spec.seccomp:
        found.append("it has a seccomp profile of its own")
    return found


def restored(manifest: Manifest, name: str, *, vm: bool, volumes: dict[str, str]) -> InstanceSpec:
    """What an instance that is made of a backup asks for: all that the first one did, under a name
    of its own, with its `volumes` under their new names. The host name follows the id. What is
    brought back is to stay: it has no lease."""
    spec = manifest.spec
    return replace(
        spec,
        image=manifest.image,
        name=name,
        hostname="" if name != manifest.name else spec.hostname,
        mounts=renamed(spec.mounts, volumes),
        isolation=Isolation.VM if vm else spec.isolation,
        user_data=manifest.user_data,
        lease="",
    )


def published(ports: Sequence[Port], taken: Collection[tuple[int, str]]) -> tuple[Port, ...]:
    """The ports of a restored instance: where another instance has them (`taken`,
    pairs of host port and protocol) the host chooses others."""
    return tuple(
        replace(port, host_port=0) if (port.host_port, port.protocol) in taken else port
        for port in ports
    )


def inside(paths: Sequence[str]) -> tuple[str, ...]:
    """Absolute paths in an instance, in their plain form. Raises InvalidArgument."""
    for path in paths:
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise InvalidArgument(
                f"'{path}' is not an absolute path.", hint="Write --path /home/user."
            )
    return tuple(dict.fromkeys(normal(path) for path in paths))


def located(path: str, volumes: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Where a path of an instance is kept: the destination of the innermost volume that it lies in
    (of pairs of destination and place), else the layer; and the path in there, relative."""
    best, place = "", "layer"
    for destination, held in volumes:
        if (path == destination or path.startswith(f"{destination}/")) and len(destination) > len(
            best
        ):
            best, place = destination, held
    return place, path.removeprefix(best).strip("/")


def superfluous(backups: Sequence[Backup], keep: Keep) -> list[Backup]:
    """Of each instance's complete backups those that `keep` does not keep."""
    found = []
    for instance in {backup.instance for backup in backups}:
        own = [b for b in backups if b.instance == instance and b.complete]
        staying = kept([backup.time for backup in own], keep)
        found += [backup for index, backup in enumerate(own) if index not in staying]
    return found
