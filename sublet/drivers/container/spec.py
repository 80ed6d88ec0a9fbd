"""The OCI runtime configuration of a container, as plain data.

Source: OCI runtime specification 1.0.2, `config.md`, `config-linux.md`. Defaults are
Docker's, made stricter where design section 5 says so.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sublet.domain.mounts import Mount
from sublet.drivers.container import seccomp
from sublet.drivers.namespaces import ID_COUNT

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
)
"""Docker's default set without MKNOD and NET_RAW."""

# Bit numbers of capabilities(7), to ask only for what this host can give.
_BITS = {
    "CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5,
    "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18, "CAP_AUDIT_WRITE": 29, "CAP_SETFCAP": 31,
}  # fmt: skip

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MASKED = [
    *(f"/proc/{name}" for name in ("acpi", "asound", "interrupts", "kcore", "keys")),
    *(f"/proc/{name}" for name in ("latency_stats", "sched_debug", "scsi", "timer_list")),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux"),
]
_READ_ONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]


@dataclass(frozen=True, slots=True)
class Process:
    """A process to start in a container: ids as seen inside."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    tty: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """All that the OCI configuration of one container depends on; paths are the host's."""

    process: Process
    rootfs: Path
    hostname: str
    user_namespace: Path
    network_namespace: Path
    uid_base: int
    mounts: tuple[Mount, ...]
    memory: int


def given_capabilities(status: str) -> tuple[str, ...]:
    """The default capabilities that the caller itself has; `status` is /proc/self/status."""
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    bounding = int(match[1], 16) if match else 0
    return tuple(name for name in CAPABILITIES if bounding >> _BITS[name] & 1)


def process(spec: Process, capabilities: tuple[str, ...]) -> dict[str, Any]:
    """The `process` object, also what `exec` takes."""
    held = list(capabilities)
    return {
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
        "noNewPrivileges": True,
    }


def config(spec: ContainerSpec, capabilities: tuple[str, ...]) -> dict[str, Any]:
    """The whole `config.json`."""
    mapping = [{"containerID": 0, "hostID": spec.uid_base, "size": ID_COUNT}]
    return {
        "ociVersion": "1.0.2",
        "process": process(spec.process, capabilities),
        "root": {"path": str(spec.rootfs), "readonly": False},
        "hostname": spec.hostname,
        "mounts": _system_mounts(spec.memory) + [_bind(mount) for mount in spec.mounts],
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")),
                {"type": "user", "path": str(spec.user_namespace)},
                {"type": "network", "path": str(spec.network_namespace)},
            ],
            "uidMappings": mapping,
            "gidMappings": mapping,
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
            "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": f"0 {ID_COUNT - 1}",
            },
            "seccomp": seccomp.profile(frozenset(capabilities)),
        },
    }


def _system_mounts(memory: int) -> list[dict[str, Any]]:
    shm = min(64 << 20, memory)
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
    return [
        {"type": kind, "source": source, "options": options, "destination": destination}
        for kind, source, options, destination in table
    ]


def _bind(mount: Mount) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    return {
        "type": "bind",
        "source": mount.source,
        "destination": mount.destination,
        "options": ["rbind", "rprivate", "nodev", "nosuid", access],
    }


def architecture() -> str:
    """This host's architecture in OCI's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
