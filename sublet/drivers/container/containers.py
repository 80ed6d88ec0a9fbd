"""Containers on this host: what is made for one, and how all of it is taken away again.

Everything is found from the instance's id: `RUN/mnt/<id>` (mount.base) holds its mounts
and namespaces, `RUN/instances/<id>` what its supervisor needs, `ROOT/instances/<id>` its
log; layer.py tells where its writable layer is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sublet.domain.config import Config
from sublet.domain.errors import HostUnsupported, InvalidArgument, ToolMissing
from sublet.domain.leftover import Leftover
from sublet.domain.mounts import Mount, MountType, in_order
from sublet.domain.networks import Mode
from sublet.domain.size import Size
from sublet.domain.spec import LogConfig
from sublet.drivers import disk, files, linux, mount, namespaces, processes, trace
from sublet.drivers.cgroup import SUPERVISORS, Cgroups
from sublet.drivers.container import devices, protocol
from sublet.drivers.container import spec as oci
from sublet.drivers.container.filters import Filters
from sublet.drivers.container.layer import Layer, WritableLayers
from sublet.drivers.container.rights import Rights
from sublet.drivers.container.rootfs import Root, User
from sublet.drivers.container.streams import Attachment
from sublet.drivers.container.supervisor import Started, Supervision, Supervisor
from sublet.drivers.descriptors import closing, opened
from sublet.drivers.pool import Pool

RESERVED = frozenset({"images", "pool", "volumes"})
"""The entries below RUN/mnt that are no instances."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the things of one instance are."""

    state: Path
    run: Path
    mounts: Path
    instance_id: str
    writable: WritableLayers

    @property
    def layer(self) -> Layer:
        """Its writable layer."""
        return self.writable.layer(self.instance_id)

    @property
    def upper(self) -> Path:
        """What the instance has changed, as overlayfs keeps it, with the instance's own ids."""
        return self.layer.upper

    @property
    def rootfs(self) -> Path:
        return self.mounts / "rootfs"

    @property
    def user_namespace(self) -> Path:
        return self.mounts / "user"

    @property
    def network_namespace(self) -> Path:
        return self.mounts / "net"

    @property
    def log(self) -> Path:
        return self.state / "log"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a container is made of: `user` as in the image config, `files` by their name in /etc
    (resolv.conf, hosts, hostname), `joined` the instance whose network namespace it shares."""

    instance_id: str
    process: oci.Process
    user: str
    hostname: str
    uid_base: int
    size: Size
    pids_limit: int
    mounts: tuple[Mount, ...]
    files: dict[str, str]
    stdin: bool
    log: LogConfig
    options: oci.Options = field(default_factory=oci.Options)
    network: Mode = Mode.NETWORKS
    joined: str = ""


def tini() -> str:
    """The init for `--init`: linked statically, so that it runs in every image."""
    found = shutil.which("tini-static")
    if found is None:
        raise ToolMissing("The init of --init (package tini) is not installed.")
    return found


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


def as_user(process: oci.Process, user: User) -> oci.Process:
    """`process` run by `user`, whose home directory it gets unless it names one."""
    named = any(entry.startswith("HOME=") for entry in process.env)
    env = process.env if named else (*process.env, f"HOME={user.home}")
    return replace(process, uid=user.uid, gid=user.gid, groups=user.groups, env=env)


class Containers:
    """All containers of one daemon."""

    def __init__(self, config: Config, cgroups: Cgroups) -> None:
        self.config = config
        self.cgroups = cgroups
        config.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.mounts = mount.base(config.run, config.identity)
        self.pool = Pool(config.root, self.mounts)
        self.writable = WritableLayers(self.pool, self.mounts)
        self.filters = Filters()
        self.supervisor = Supervisor(config.run / "runtime", unified=cgroups.unified)
        self.rights = Rights.own()

    async def setup(self) -> None:
        """Make the directories and cgroups that all containers share. Idempotent."""
        mount.share(self.mounts)
        for directory in (self.config.run / "runtime", self.config.run / "instances"):
            directory.mkdir(mode=0o711, exist_ok=True)
        (self.config.root / "instances").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.cgroups.setup()
        self.supervisor.setup()
        await self.pool.open()

    def places(self, instance_id: str) -> Places:
        return Places(
            self.config.root / "instances" / instance_id,
            self.config.run / "instances" / instance_id,
            self.mounts / instance_id,
            instance_id,
            self.writable,
        )

    async def isolate(
        self, instance_id: str, uid_base: int, *, network: bool = True
    ) -> Path | None:
        """Make the instance's user namespace and, with `network`, in it a network namespace, whose
        file is given back."""
        at = self.places(instance_id)
        at.mounts.mkdir(mode=0o700, exist_ok=True)
        os.chown(at.mounts, 0, uid_base)
        at.mounts.chmod(0o710)  # the container's root walks through, no other user of the host
        file = at.network_namespace if network else None
        namespaces.create(at.user_namespace, file, uid_base)
        return file

    async def prepare(self, plan: Plan, lower: Path) -> None:
        """Make all that the container needs, on the image shown at `lower`."""
        at = self.places(plan.instance_id)
        with trace.step("root"):
            await self.mount_root(plan.instance_id, lower, plan.uid_base, plan.size.disk)
        binds = tuple(
            self._bind(at, n, bind, plan.uid_base) for n, bind in enumerate(in_order(plan.mounts))
        )
        at.run.mkdir(mode=0o700, exist_ok=True)
        process = self._prepare(at, plan)
        files = tuple(self._file(at, plan, name) for name in plan.files)
        spec = oci.ContainerSpec(
            process=process,
            rootfs=at.rootfs,
            hostname=plan.hostname,
            user_namespace=at.user_namespace,
            network_namespace=self._network_namespace(plan),
            sysfs=None if plan.network.own else self._sysfs(at, plan),
            uid_base=plan.uid_base,
            mounts=files + binds,
            memory=plan.size.memory,
            options=plan.options,
            nodes=devices.provide(
                at.mounts / "devices", plan.options.devices, plan.uid_base, process.gid
            ),
            init=tini() if plan.options.init else "",
        )
        config = self.filters.apply(plan.instance_id, oci.config(spec, self.rights))
        (at.run / "config.json").write_text(json.dumps(config))
        with trace.step("cgroups"):
            self.cgroups.create(plan.instance_id, plan.size, plan.pids_limit)

    async def start(self, plan: Plan, *, attach: bool) -> Started:
        """Run the prepared container; with `attach`, its streams from the first byte on.

        Raises CommandNotFound, CommandNotExecutable, StartFailed.
        """
        at = self.places(plan.instance_id)
        supervision = Supervision(
            instance_id=plan.instance_id,
            directory=at.run,
            log=None if plan.log.driver == "none" else at.log,
            log_size=plan.log.max_size,
            log_files=plan.log.max_files,
            tty=plan.process.tty,
            stdin=plan.stdin,
            own_cgroups=self.cgroups.entrances(SUPERVISORS),
            cgroups=self.cgroups.entrances(plan.instance_id),
        )
        with trace.step("start"):
            started = await self.supervisor.start(supervision, attach=attach)
        self.filters.learn(plan.instance_id, lambda: self.supervisor.filter(plan.instance_id))
        return started

    def attach(self, instance_id: str) -> Attachment:
        """The streams of a running container, from now on. Raises OSError where it has ended."""
        return Attachment.open(self.places(instance_id).run)

    async def signal(self, instance_id: str, pid: int, pid_start: int, number: int) -> None:
        """Send a signal to a container's first process."""
        processes.send(pid, pid_start, number)

    async def freeze(self, instance_id: str, frozen: bool) -> None:
        """Freeze a container's processes, or thaw them: `Cgroups.freeze`."""
        await self.cgroups.freeze(instance_id, frozen)

    def limit(self, instance_id: str, size: Size, pids: int) -> None:
        """Set a container's limits. Raises OSError where the kernel refuses."""
        self.cgroups.limit(instance_id, size, pids)

    async def mount_root(self, instance_id: str, lower: Path, uid_base: int, limit: int) -> None:
        """The image with mapped ids, and over it the writable layer that the mapped root owns."""
        at = self.places(instance_id)
        at.state.mkdir(mode=0o700, exist_ok=True)
        mapped = at.mounts / "lower"
        for directory in (mapped, at.rootfs):
            directory.mkdir(mode=0o755, exist_ok=True)
        layer = await self.writable.show(instance_id, lower, uid_base, limit)
        try:
            mount.bind_idmapped(str(lower), str(mapped), str(at.user_namespace), read_only=True)
            mount.overlay(str(mapped), layer / "upper", layer / "work", at.rootfs)
        except OSError as error:
            if str(lower) != "/":
                raise
            raise _unfit("/", error) from error
        mount.unmount(str(mapped))  # the overlay keeps a copy of its own

    def mount_volumes(self, instance_id: str, mounts: Iterable[Mount], uid_base: int) -> None:
        """Volumes and binds in the mounted root of an instance that does not run."""
        at = self.places(instance_id)
        with Root(at.rootfs, uid_base) as root:
            for number, bind in enumerate(in_order(mounts)):
                if bind.type is MountType.TMPFS:
                    continue
                source = self._bind(at, number, bind, uid_base).source
                directory = os.path.isdir(source)
                with closing(root.mount_point(bind.destination, directory=directory)) as fd:
                    mount.bind(source, f"/proc/self/fd/{fd}")

    def _bind(self, at: Places, number: int, bind: Mount, uid_base: int) -> Mount:
        """The host's directory or file with ids mapped, so that root inside is root outside."""
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
            self._copy_on_write(at, bind, target, uid_base)
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

    def _copy_on_write(self, at: Places, bind: Mount, target: Path, uid_base: int) -> None:
        """Show the host's directory at `target`, under what the instance itself writes there."""
        if not target.is_dir():
            raise InvalidArgument(
                f"{bind.source} is a file; only a directory can be mounted copy-on-write.",
                hint="Mount the directory that holds it.",
            )
        lower = target.with_name(f"{target.name}.lower")
        lower.mkdir(exist_ok=True)
        layer = self.writable.show_cow(
            at.layer.shown, bind.destination, Path(bind.source), uid_base
        )
        try:
            mount.bind_idmapped(bind.source, str(lower), str(at.user_namespace), read_only=True)
            mount.overlay(str(lower), layer / "upper", layer / "work", target)
        except OSError as error:
            raise _unfit(bind.source, error) from error
        mount.unmount(str(lower))  # the overlay keeps a copy of its own

    def _prepare(self, at: Places, plan: Plan) -> oci.Process:
        """Make the root safe to mount on, and the process one that the image knows."""
        with Root(at.rootfs, plan.uid_base) as root:
            root.make_safe()
            for bind in plan.mounts:
                root.check_destination(bind.destination)
            user = root.user(plan.user, plan.process.join)
        return as_user(plan.process, user)

    def _file(self, at: Places, plan: Plan, name: str) -> Mount:
        path = at.mounts / name
        path.write_text(plan.files[name])
        os.chown(path, plan.uid_base, plan.uid_base)
        os.chmod(path, 0o644)
        return Mount(str(path), f"/etc/{name}", plan.options.read_only)

    def _network_namespace(self, plan: Plan) -> Path | None:
        """The file of the namespace that the container enters; None: the host's."""
        if plan.network is Mode.HOST:
            return None
        return self.places(plan.joined or plan.instance_id).network_namespace

    def _sysfs(self, at: Places, plan: Plan) -> Path:
        """A sysfs that shows the interfaces of a network namespace which belongs to others; the
        container itself may not mount that (sysfs belongs to a network namespace's owner)."""
        target = at.mounts / "sys"
        target.mkdir(exist_ok=True)
        file = self._network_namespace(plan) or Path("/proc/self/ns/net")
        with opened(file) as fd, linux.entered(fd, linux.CLONE_NEWNET, "net"):
            mount.sysfs(target)
        return target

    def rewrite(self, instance_id: str, name: str, text: str) -> None:
        """Change a file of a running container in /etc (resolv.conf, hosts), if it is there."""
        path = self.places(instance_id).mounts / name
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(fd, "w") as file:
                file.write(text)

    def exit_code(self, instance_id: str) -> int | None:
        """The exit code of a container that has ended, None if there is none (it was killed)."""
        return protocol.exit_code(self.places(instance_id).run)

    def exit_time(self, instance_id: str) -> float | None:
        """When it ended, in seconds since the epoch, None where nothing tells."""
        return protocol.exit_time(self.places(instance_id).run)

    async def teardown(self, instance_id: str) -> None:
        """Take away all that a stopped instance does not need: processes, cgroups, mounts,
        namespaces. Its writable layer and log stay. Idempotent."""
        at = self.places(instance_id)
        mount.unmount(str(at.network_namespace))  # it takes the kernel longest: it begins now
        with trace.step("cgroups"):
            await self.cgroups.destroy(instance_id)
        with trace.step("unmount"):
            mount.unmount_below(at.mounts)
        shutil.rmtree(at.mounts, ignore_errors=True)
        shutil.rmtree(at.run, ignore_errors=True)
        self.filters.forget(instance_id)
        with trace.step("runtime delete"):
            self.supervisor.delete(instance_id)

    async def delete(self, instance_id: str) -> None:
        """Remove what is left of a torn-down instance: writable layer and log. Idempotent."""
        await self.writable.delete(instance_id)
        await files.remove(self.places(instance_id).state)

    def leftovers(self, known: set[str], live: set[str]) -> list[Leftover]:
        """Resources of instances that do not exist (`known`) or do not run (`live`)."""
        config = self.config
        found = [
            *self._strays("directory", config.root / "instances", known),
            *self._strays("directory", self.writable.directory, known),
            *self._strays("directory", config.run / "instances", live),
            *self._strays("directory", config.run / "runtime", live),
            *self._strays("mount", self.mounts, live | RESERVED),
        ]
        found += self._stray_devices(live)
        strays = sorted(self.cgroups.ids() - live)
        found = list(dict.fromkeys(found))  # the layers may be where the logs are
        return found + [Leftover("cgroup", f"{self.cgroups.parent}/{i}", i) for i in strays]

    def _stray_devices(self, live: set[str]) -> list[Leftover]:
        """Loop devices of the limited disks of instances that do not run."""
        directory = self.writable.directory
        owners = {d: file.parent.name for d, file in disk.loops(directory).items()}
        return [Leftover("loop device", d, i) for d, i in sorted(owners.items()) if i not in live]

    @staticmethod
    def _strays(kind: str, directory: Path, expected: set[str]) -> list[Leftover]:
        names = [name for name in files.entries(directory) if name not in expected]
        return [Leftover(kind, str(directory / name), name) for name in names]

    def close(self) -> None:
        """Remove what `setup` made, when no container is left."""
        self.supervisor.close()
        mount.unmount_below(self.mounts)
        run = self.config.run
        for directory in (self.mounts, run / "runtime", run / "instances"):
            shutil.rmtree(directory, ignore_errors=True)
        self.cgroups.teardown()
