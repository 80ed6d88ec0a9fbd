"""Containers on this host: what is made for one, and how all of it is taken away again.

Everything is found from the instance's id: `RUN/mnt/<id>` (mount.base) holds its mounts
and namespaces, `RUN/instances/<id>` what its supervisor needs, `ROOT/instances/<id>` its
log; layer.py tells where its writable layer is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sublet.domain.config import Config
from sublet.domain.errors import ToolMissing
from sublet.domain.leftover import Leftover
from sublet.domain.mounts import Mount
from sublet.domain.networks import Mode
from sublet.domain.size import Size
from sublet.domain.spec import LogConfig
from sublet.drivers import disk, files, mount, namespaces, processes, trace
from sublet.drivers.cgroup import SUPERVISORS, Cgroups
from sublet.drivers.container import devices, mounting, protocol
from sublet.drivers.container import spec as oci
from sublet.drivers.container.filters import Filters
from sublet.drivers.container.layer import WritableLayers
from sublet.drivers.container.places import Places
from sublet.drivers.container.rights import Rights
from sublet.drivers.container.rootfs import Root, User
from sublet.drivers.container.streams import Attachment
from sublet.drivers.container.supervisor import Started, Supervision, Supervisor
from sublet.drivers.pool import Pool

RESERVED = frozenset({"images", "pool", "volumes"})
"""The entries below RUN/mnt that are no instances."""


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
            await mounting.root(at, lower, plan.uid_base, plan.size.disk)
        binds = mounting.binds(at, plan.mounts, plan.uid_base)
        at.run.mkdir(mode=0o700, exist_ok=True)
        process = self._prepare(at, plan)
        files = tuple(
            mounting.file(at, name, text, plan.uid_base, read_only=plan.options.read_only)
            for name, text in plan.files.items()
        )
        namespace = self._network_namespace(plan)
        spec = oci.ContainerSpec(
            process=process,
            rootfs=at.rootfs,
            hostname=plan.hostname,
            user_namespace=at.user_namespace,
            network_namespace=namespace,
            sysfs=None if plan.network.own else mounting.sysfs(at, namespace),
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
        """The instance's root, on the image shown at `lower`; it writes `limit` bytes at most."""
        await mounting.root(self.places(instance_id), lower, uid_base, limit)

    def mount_volumes(self, instance_id: str, mounts: Iterable[Mount], uid_base: int) -> None:
        """Volumes and binds in the mounted root of an instance that does not run."""
        mounting.volumes(self.places(instance_id), mounts, uid_base)

    def _prepare(self, at: Places, plan: Plan) -> oci.Process:
        """Make the root safe to mount on, and the process one that the image knows."""
        with Root(at.rootfs, plan.uid_base) as root:
            root.make_safe()
            for bind in plan.mounts:
                root.check_destination(bind.destination)
            user = root.user(plan.user, plan.process.join)
        return as_user(plan.process, user)

    def _network_namespace(self, plan: Plan) -> Path | None:
        """The file of the namespace that the container enters; None: the host's."""
        if plan.network is Mode.HOST:
            return None
        return self.places(plan.joined or plan.instance_id).network_namespace

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
