"""The OCI runtime configuration of a container, as plain data.

Source: OCI runtime specification 1.0.2, `config.md`, `config-linux.md`. Defaults are
Docker's, made stricter where design section 5 says so.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sublet.domain.mounts import Mount, MountType
from sublet.domain.privileges import Device, Ulimit
from sublet.drivers.container import seccomp
from sublet.drivers.container.devices import Node
from sublet.drivers.container.rights import Rights
from sublet.drivers.namespaces import ID_COUNT

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INIT = "/dev/init"
"""Where the init of `--init` is seen inside: on a file system that every instance has."""

SHM_SIZE = 64 << 20
"""Bytes of /dev/shm without `--shm-size`, as Docker's."""

_MASKED = [
    *(f"/proc/{name}" for name in ("acpi", "asound", "interrupts", "kcore", "keys")),
    *(f"/proc/{name}" for name in ("latency_stats", "sched_debug", "scsi", "timer_list")),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux"),
]
_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": f"0 {ID_COUNT - 1}",
}
"""Set in a network namespace of the container's own."""

_READ_ONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]


@dataclass(frozen=True, slots=True)
class Process:
    """A process to start in a container: ids as seen inside. `join` names further groups, by the
    image's /etc/group; what it may do is given by `cap_add`, `cap_drop`, `ulimits`."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    join: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What a tenant may change about a container besides its process and mounts: `seccomp` and
    `shm_size` as of InstanceSpec; `init`: a small init runs the process."""

    seccomp: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    read_only: bool = False
    shm_size: int = 0
    init: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """All that the OCI configuration of one container depends on; paths are the host's.

    `nodes` are its devices, `init` the program that runs its process, empty for none.
    `network_namespace` None: the host's. `sysfs` is mounted already where the container may not.
    """

    process: Process
    rootfs: Path
    hostname: str
    user_namespace: Path
    network_namespace: Path | None
    uid_base: int
    mounts: tuple[Mount, ...]
    memory: int
    options: Options = field(default_factory=Options)
    nodes: tuple[Node, ...] = ()
    init: str = ""
    sysfs: Path | None = None


def process(spec: Process, rights: Rights) -> dict[str, Any]:
    """The `process` object, also what `exec` takes. Raises InvalidArgument for more than the host
    can give."""
    held = list(rights.give(spec.cap_add, spec.cap_drop))
    found: dict[str, Any] = {
        "terminal": spec.tty,
        "user": {"uid": spec.uid, "gid": spec.gid, "additionalGids": list(spec.groups)},
        "args": list(spec.args),
        "env": list(spec.env),
        "cwd": spec.working_dir,
        "capabilities": {
            "bounding": held,
            "effective": held if spec.uid == 0 else [],
            "permitted": held if spec.uid == 0 else [],
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": rights.rlimits(spec.ulimits),
        "noNewPrivileges": True,
    }
    if spec.tty and any(spec.console_size):
        found["consoleSize"] = dict(zip(("height", "width"), spec.console_size, strict=True))
    if rights.oom_score_adj < 0:  # the daemon's protection is not for what it starts
        found["oomScoreAdj"] = 0
    return found


def config(spec: ContainerSpec, rights: Rights) -> dict[str, Any]:
    """The whole `config.json`."""
    started, options = process(spec.process, rights), spec.options
    if spec.init:
        started["args"] = [INIT, "--", *started["args"]]
    return {
        "ociVersion": "1.0.2",
        "process": started,
        "root": {"path": str(spec.rootfs), "readonly": options.read_only},
        "hostname": spec.hostname,
        "mounts": [
            *_system_mounts(min(options.shm_size or SHM_SIZE, spec.memory), spec.sysfs),
            *(_node(node) for node in spec.nodes),
            *([_program(spec.init)] if spec.init else []),
            *(_mount(mount, spec.memory) for mount in spec.mounts),
        ],
        "linux": _linux(spec, frozenset(started["capabilities"]["bounding"])),
    }


def _linux(spec: ContainerSpec, held: frozenset[str]) -> dict[str, Any]:
    """Namespaces, ids, the files of the kernel, sysctls and the system call filter."""
    mapping = [{"containerID": 0, "hostID": spec.uid_base, "size": ID_COUNT}]
    filtered = seccomp.chosen(spec.options.seccomp, held)
    return {
        "namespaces": [
            *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")),
            {"type": "user", "path": str(spec.user_namespace)},
            *_network(spec.network_namespace),
        ],
        "uidMappings": mapping,
        "gidMappings": mapping,
        "maskedPaths": _MASKED,
        "readonlyPaths": _READ_ONLY,
        "sysctl": {**({} if spec.sysfs else _SYSCTLS), **spec.options.sysctls},
        **({"seccomp": filtered} if filtered else {}),
    }


def _network(namespace: Path | None) -> list[dict[str, str]]:
    return [{"type": "network", "path": str(namespace)}] if namespace else []


def _system_mounts(shm: int, sysfs: Path | None) -> list[dict[str, Any]]:
    table = [
        ("proc", "proc", ["nosuid", "noexec", "nodev"], "/proc"),
        ("tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"], "/dev"),
        (
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            "/dev/pts",
        ),
        ("tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", f"size={shm}"], "/dev/shm"),
        ("mqueue", "mqueue", ["nosuid", "noexec", "nodev"], "/dev/mqueue"),
        ("sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"], "/sys"),
        ("cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"], "/sys/fs/cgroup"),
    ]
    made = [
        {"type": kind, "source": source, "options": options, "destination": destination}
        for kind, source, options, destination in table
    ]
    if sysfs:
        shown = _mount(Mount(str(sysfs), "/sys", read_only=True), 0)
        made = [shown if entry["destination"] == "/sys" else entry for entry in made]
    return made


def _node(node: Node) -> dict[str, Any]:
    """A device: the one mount that is not `nodev`."""
    return {
        "type": "bind",
        "source": node.source,
        "destination": node.destination,
        "options": ["bind", "rprivate", "nosuid", "noexec"],
    }


def _program(path: str) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": path,
        "destination": INIT,
        "options": ["bind", "rprivate", "nodev", "nosuid", "ro"],
    }


def _mount(mount: Mount, memory: int) -> dict[str, Any]:
    """A bind, or memory that the instance pays for: by default half of what it has."""
    access = "ro" if mount.read_only else "rw"
    if mount.type is MountType.TMPFS:
        kind, source = "tmpfs", "tmpfs"
        own = [f"mode={mount.mode or '1777'}", f"size={mount.size or memory // 2}"]
        options = ["nosuid", "nodev", "noexec", *own, access]
    else:
        kind, source = "bind", mount.source
        options = ["rbind", "rprivate", "nodev", "nosuid", access]
    return {
        "type": kind,
        "source": source,
        "destination": mount.destination,
        "options": options,
    }


def architecture() -> str:
    """This host's architecture in OCI's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
