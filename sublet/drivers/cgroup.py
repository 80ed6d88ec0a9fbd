"""Control groups, version 1 and 2, and both mixed.

Every instance has a cgroup of its own, `<parent>/<id>`, in every hierarchy that is
mounted, the ones without limits too: a process that stayed behind in one would show
its neighbours inside. Sources: cgroups(7), Documentation/admin-guide/cgroup-v1, -v2.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import HostUnsupported, WrongState
from sublet.domain.size import Size

PERIOD = 100_000
"""Length of a CPU bandwidth period, in microseconds."""

SUPERVISORS = "supervisors"
"""The one cgroup beside those of the instances, without limits: what stops, freezes or kills an
instance must not reach who watches over it, nor what ends with the daemon's own service."""

_NEEDED = ("cpu", "memory", "pids")
_USEFUL = (*_NEEDED, "io")
"""Controllers that version 2 is asked to enable: those with limits, and what counts I/O."""

FREEZE_DEADLINE = 10.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup tree: its mount point, version, and controllers."""

    mount: Path
    version: int
    controllers: frozenset[str]


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The cgroup trees that `mountinfo` (proc(5)) lists, each once."""
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fstype, _, options = after.split(" ", 2)
        mount = Path(before.split(" ")[4])
        if fstype == "cgroup2":
            names = frozenset((mount / "cgroup.controllers").read_text().split())
            found.setdefault(frozenset({"v2"}), Hierarchy(mount, 2, names))
        elif fstype == "cgroup":
            names = frozenset(options.split(",")) - {"rw", "ro", "xattr", "clone_children"}
            found.setdefault(names, Hierarchy(mount, 1, names))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Entrances:
    """The tasks files of an instance's cgroups of version 1, and the directory of the one of
    version 2, if there is any."""

    tasks: tuple[str, ...]
    tree: str

    def options(self, own: Entrances) -> list[str]:
        """How a supervisor, which enters its `own` cgroups, is told of those of its instance."""
        argv = [f"--own-cgroup={file}" for file in own.tasks]
        argv += [f"--cgroup={file}" for file in self.tasks]
        return argv + ([f"--own-tree={own.tree}", f"--tree={self.tree}"] if self.tree else [])


class Cgroups:
    """The cgroups of one daemon's instances, below `parent` in each hierarchy."""

    def __init__(self, parent: str, trees: list[Hierarchy] | None = None) -> None:
        if trees is None:
            trees = hierarchies(Path("/proc/self/mountinfo").read_text())
        self.parent = parent
        self.trees = trees
        self._parents = [tree.mount / parent for tree in trees]
        missing = [name for name in _NEEDED if not self._tree(name)]
        if missing:
            raise HostUnsupported(
                f"This host has no cgroup controller '{missing[0]}'.",
                hint="Mount the cgroup file systems, or enable it on the kernel's command line.",
            )

    @property
    def layout(self) -> str:
        """`v2`, `v1`, or `hybrid`: a cgroup2 without the controllers beside v1."""
        versions = {tree.version for tree in self.trees}
        if versions == {1, 2}:
            return "hybrid"
        return f"v{versions.pop()}"

    @property
    def unified(self) -> bool:
        """Whether all controllers are on cgroup2, the layout that crun runs on as it is."""
        return self.layout == "v2"

    def _tree(self, controller: str) -> Hierarchy | None:
        return next((tree for tree in self.trees if controller in tree.controllers), None)

    def _directories(self, instance_id: str) -> list[Path]:
        return [parent / instance_id for parent in self._parents]

    def setup(self) -> None:
        """Make the parent cgroups, with controllers enabled for their children."""
        for tree in self.trees:
            parent = tree.mount / self.parent
            parent.mkdir(exist_ok=True)
            if tree.version == 2:
                enable = " ".join(f"+{name}" for name in _USEFUL if name in tree.controllers)
                for directory in (tree.mount, parent):
                    if enable:
                        _write(directory / "cgroup.subtree_control", enable)
            elif "cpuset" in tree.controllers:
                _inherit_cpuset(parent)
            supervisors = parent / SUPERVISORS
            supervisors.mkdir(exist_ok=True)
            if tree.version == 1 and "cpuset" in tree.controllers:
                _inherit_cpuset(supervisors)

    def create(self, instance_id: str, size: Size, pids: int) -> None:
        """Make the instance's cgroups with the limits of its size."""
        for tree, directory in zip(self.trees, self._directories(instance_id), strict=True):
            directory.mkdir(exist_ok=True)
            if tree.version == 1 and "cpuset" in tree.controllers:
                _inherit_cpuset(directory)
        self.limit(instance_id, size, pids)

    def limit(self, instance_id: str, size: Size, pids: int) -> None:
        """Set the limits: CPU bandwidth and share, memory without swap, number of tasks."""
        for name in _NEEDED:
            tree = self._tree(name)
            assert tree is not None
            directory = tree.mount / self.parent / instance_id
            values = limits(name, tree.version, size, pids)
            files = [(directory / file, value) for file, value in values]
            swap = directory / "memory.memsw.limit_in_bytes"
            if (name, tree.version) == ("memory", 1) and not swap.exists():
                files = files[:1]  # the kernel was built or booted without swap accounting
            elif name == "memory" and tree.version == 1 and int(swap.read_text()) < size.memory:
                files.reverse()  # the limit with swap is never the smaller one
            for path, value in files:
                _write(path, value)

    def procs_files(self, instance_id: str) -> list[str]:
        """The files to write a pid (or 0, for oneself) to, to enter the instance's cgroups."""
        return [f"{parent}/{instance_id}/cgroup.procs" for parent in self._parents]

    def entrances(self, instance_id: str) -> Entrances:
        """What the supervisor needs to put processes into the instance's cgroups."""
        places = [
            (tree.version, f"{parent}/{instance_id}")
            for tree, parent in zip(self.trees, self._parents, strict=True)
        ]
        tasks = tuple(f"{place}/tasks" for version, place in places if version == 1)
        return Entrances(tasks, next((place for version, place in places if version == 2), ""))

    def pids(self, instance_id: str) -> list[int]:
        """All processes of the instance."""
        pids: set[int] = set()
        for file in self.procs_files(instance_id):
            with contextlib.suppress(FileNotFoundError, OSError):
                pids.update(map(int, Path(file).read_text().split()))
        return sorted(pids)

    def memory(self, instance_id: str) -> int:
        """Bytes charged to the instance, its share of the page cache included."""
        tree = self._tree("memory")
        assert tree is not None
        file = "memory.current" if tree.version == 2 else "memory.usage_in_bytes"
        try:
            return int((tree.mount / self.parent / instance_id / file).read_text())
        except OSError:
            return 0

    def directory(self, controller: str, instance_id: str) -> Path | None:
        """Where a controller's files of the instance are; None without that controller."""
        tree = self._tree(controller)
        return tree.mount / self.parent / instance_id if tree else None

    async def freeze(self, instance_id: str, frozen: bool) -> None:
        """Freeze all processes of the instance, or thaw them; returns when it has happened.

        Idempotent. Raises WrongState when they cannot be frozen in time, thawed again then.
        Sources: freezer-subsystem.rst of cgroup-v1; cgroup-v2.rst, `cgroup.freeze`.
        """
        directory, version = self._freezer(instance_id)
        try:
            if _is_frozen(directory, version) == frozen:
                return
        except FileNotFoundError as error:
            if not frozen:
                return
            raise WrongState(f"{instance_id} does not run any more.") from error
        file, words = ("freezer.state", ("THAWED", "FROZEN"))
        if version == 2:
            file, words = ("cgroup.freeze", ("0", "1"))
        try:
            async with asyncio.timeout(FREEZE_DEADLINE):
                pause = 0.0005
                while True:
                    _write(directory / file, words[frozen])  # again: a fork may have slipped by
                    if _is_frozen(directory, version) == frozen:
                        return
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.05)
        except BaseException as error:
            _write(directory / file, words[0])
            if not isinstance(error, TimeoutError):
                raise
        raise WrongState(
            f"The processes of {instance_id} could not be paused within {FREEZE_DEADLINE:g} s.",
            hint="One of them may hang in the kernel; try again.",
        )

    def _freezer(self, instance_id: str) -> tuple[Path, int]:
        """The directory of the instance's freezer, and its version."""
        found = self.directory("freezer", instance_id)
        if found:
            return found, 1
        for tree in self.trees:
            if tree.version == 2:
                return tree.mount / self.parent / instance_id, 2
        raise HostUnsupported("This host has no cgroup freezer.")

    def _thaw(self, instance_id: str) -> None:
        """Frozen processes of version 1 do not even die."""
        directory = self.directory("freezer", instance_id)
        with contextlib.suppress(FileNotFoundError):
            if directory and _is_frozen(directory, 1) is not False:
                _write(directory / "freezer.state", "THAWED")

    def ids(self) -> set[str]:
        """Ids that have a cgroup in any hierarchy."""
        found: set[str] = set()
        for tree in self.trees:
            with contextlib.suppress(FileNotFoundError):
                entries = list(os.scandir(tree.mount / self.parent))
                found.update(entry.name for entry in entries if entry.is_dir())
        return found - {SUPERVISORS}

    async def destroy(self, instance_id: str, deadline: float = 10) -> None:
        """Kill what is left in the instance's cgroups and remove them. Idempotent."""
        async with asyncio.timeout(deadline):
            for directory in self._directories(instance_id):
                pause = 0.0005
                while not _removed(directory):
                    self._thaw(instance_id)
                    for pid in self.pids(instance_id):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    await asyncio.sleep(pause)  # a dying process still counts
                    pause = min(pause * 2, 0.05)

    def teardown(self) -> None:
        """Remove the parent cgroups, if no instance is left in them."""
        for tree in self.trees:
            with contextlib.suppress(OSError):
                (tree.mount / self.parent / SUPERVISORS).rmdir()
                (tree.mount / self.parent).rmdir()


def limits(controller: str, version: int, size: Size, pids: int) -> list[tuple[str, str]]:
    """The files of one controller, and what to write to each, for a size."""
    quota = max(1000, round(size.cpus * PERIOD))
    shares = min(max(2, round(size.cpus * 1024)), 262144)
    # The kernel's own conversion of shares [2, 262144] to a weight [1, 10000].
    weight = 1 + (shares - 2) * 9999 // 262142
    table = {
        ("cpu", 1): [
            ("cpu.cfs_period_us", str(PERIOD)),
            ("cpu.cfs_quota_us", str(quota)),
            ("cpu.shares", str(shares)),
        ],
        ("cpu", 2): [("cpu.max", f"{quota} {PERIOD}"), ("cpu.weight", str(weight))],
        ("memory", 1): [
            ("memory.limit_in_bytes", str(size.memory)),
            ("memory.memsw.limit_in_bytes", str(size.memory)),
        ],
        ("memory", 2): [("memory.max", str(size.memory)), ("memory.swap.max", "0")],
        ("pids", 1): [("pids.max", str(pids))],
        ("pids", 2): [("pids.max", str(pids))],
    }
    return table[controller, version]


def _is_frozen(directory: Path, version: int) -> bool | None:
    """Whether all are frozen; None while it is going on."""
    if version == 1:
        state = (directory / "freezer.state").read_text().strip()
        return {"FROZEN": True, "THAWED": False}.get(state)
    return "frozen 1" in (directory / "cgroup.events").read_text().splitlines()


def _removed(directory: Path) -> bool:
    """Remove an empty cgroup; False while there are processes in it."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _write(file: Path, value: str) -> None:
    file.write_text(value)


def _inherit_cpuset(directory: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        own, above = directory / name, directory.parent / name
        if not own.read_text().strip():
            own.write_text(above.read_text())
