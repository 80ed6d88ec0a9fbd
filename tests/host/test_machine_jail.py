"""Real QEMU as the supervisor of VMs starts it: what it is, and all that it cannot reach."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from machinelab import UID, Lab, Machine

from sublet.domain.config import Config
from sublet.domain.size import Size
from sublet.drivers.cgroup import SUPERVISORS, Cgroups
from sublet.drivers.container.protocol import Tell

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
MEMORY = 64 << 20
QEMU = [
    *("/usr/bin/qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-S"),
    *("-machine", "q35,accel=tcg,graphics=off,usb=off,sata=off,memory-backend=ram"),
    *("-object", f"memory-backend-file,id=ram,mem-path=/proc/self/fd/4,size={MEMORY},share=off"),
    *("-m", f"{MEMORY >> 20}M", "-sandbox", SANDBOX, "-device", "virtio-serial-pci"),
    *("-chardev", "socket,id=agent,fd=@agent@", "-device", "virtserialport,chardev=agent"),
    *("-chardev", "socket,id=console,fd=@console@", "-serial", "chardev:console"),
    *("-chardev", "socket,id=qmp,fd=@qmp@,server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
]

INTRUDER = """
import glob, json, os, resource, socket, sys
def attempt(function, *args):
    try: return repr(function(*args))
    except OSError as error: return error.strerror
seen = {
    "root": sorted(os.listdir("/")),
    "proc": sorted(os.listdir("/proc")),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "etc": os.listdir("/etc"),
    "dev": sorted(os.listdir("/dev")),
    "pid": os.getpid(),
    "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "interfaces": [name for _, name in socket.if_nameindex()],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "environment": sorted(os.environ),
    "write /usr": attempt(open, "/usr/x", "w"),
    "write /": attempt(open, "/x", "w"),
    "write /tmp": attempt(open, "/tmp/x", "w"),
    "setuid": attempt(os.setuid, 0),
    "mknod": attempt(os.mknod, "/tmp/disk", 0o60600, os.makedev(254, 0)),
    "chroot": attempt(os.chroot, "/tmp"),
    "outside": attempt(os.listdir, "/proc/1/root/../../root"),
    "random": len(open("/dev/urandom", "rb").read(8)),
}
socket.socket(fileno=int(sys.argv[1])).sendall(json.dumps(seen).encode() + b"\\n")
"""


@pytest.fixture
def machines() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def memory() -> Iterator[int]:
    """A sealed file of zeros, as templates are."""
    fd = os.memfd_create("memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, MEMORY)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    yield fd
    os.close(fd)


def qemu(machines: Lab, memory: int, *options: str) -> tuple[Machine, int]:
    """Real QEMU, stopped before its first instruction, and its pid."""
    machine = machines.start("--resumed", *options, argv=QEMU, fds=(memory,))
    pid = machine.started()[0]
    monitor = Monitor(machine.home)
    assert monitor("query-status")["status"] == "prelaunch"
    monitor.close()
    return machine, pid


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


class Monitor:
    """QEMU's QMP, on the socket that the supervisor made."""

    def __init__(self, home: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(home / "qmp"))
        self.file = self.socket.makefile("rw")
        assert "QMP" in json.loads(self.file.readline())
        self("qmp_capabilities")

    def __call__(self, command: str) -> Any:
        self.file.write(json.dumps({"execute": command}) + "\n")
        self.file.flush()
        answer = json.loads(self.file.readline())
        return answer["return"]

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def test_what_qemu_is(machines: Lab, memory: int) -> None:
    machine, pid = qemu(machines, memory)
    now = status(pid)
    ids = "\t".join([str(UID)] * 4)
    assert (now["Uid"], now["Gid"], now["Groups"].strip()) == (ids, ids, "")
    assert (now["Seccomp"], now["NoNewPrivs"]) == ("2", "1")
    assert {int(now[name], 16) for name in now if name.startswith("Cap")} == {0}
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"
    for kind in ("mnt", "net", "pid", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
    for name in ("qmp", "socket"):
        assert (machine.home / name).stat().st_mode & 0o077 == 0
    root = Path(f"/proc/{pid}/root")
    names = {"bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "tmp", "usr"}
    assert {path.name for path in root.iterdir()} <= names
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    assert {line.split()[1] for line in mounts} == {"/", "/usr", "/etc/ld.so.cache", "/proc"}
    assert all(line.split()[3].startswith("ro,") for line in mounts if line.split()[1] != "/")


def test_it_has_no_descriptors_but_its_own(machines: Lab, memory: int) -> None:
    _, pid = qemu(machines, memory)
    places = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    files = [place for place in places if place.startswith("/") and place != "/dev/null"]
    assert {file.split(" ")[0] for file in files} <= {"/memfd:memory"}


def test_what_broke_out_of_it_can_reach(machines: Lab) -> None:
    argv = ["/usr/bin/python3", "-ISc", INTRUDER, "@console@"]
    machine = machines.start("--resumed", argv=argv)
    eventually(lambda: (machine.file("console") or "").endswith("\n"), "what it has seen")
    seen = json.loads(machine.file("console") or "")
    assert seen["proc"] == ["1", "self", "thread-self"]
    assert (seen["pid"], set(seen["ids"])) == (1, {UID})
    assert seen["fds"] == [0, 1, 2, 3, 4, 5, 6]  # 3 is the listing's own
    assert (seen["etc"], seen["dev"]) == (["ld.so.cache"], ["null", "urandom"])
    assert (seen["interfaces"], seen["core"], seen["random"]) == (["lo"], 0, 8)
    assert "HOME" not in seen["environment"]
    assert seen["write /usr"] == "Read-only file system"
    refusals = {seen[what] for what in ("write /", "setuid", "mknod", "chroot")}
    assert refusals <= {"Permission denied", "Operation not permitted"}
    assert seen["write /tmp"].startswith("<")
    assert "root" not in seen["root"]


def test_it_is_in_the_cgroups_of_the_instance(machines: Lab, memory: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="sublet-"))
    groups = Cgroups(Config(root=home / "root", run=home / "run").identity)
    groups.setup()
    groups.create("vm", Size(cpus=1, memory=512 << 20), 100)
    own, inner = groups.entrances(SUPERVISORS), groups.entrances("vm")
    options = [f"--own-cgroup={file}" for file in own.tasks]
    options += [f"--cgroup={file}" for file in inner.tasks]
    if inner.tree:
        options += [f"--own-tree={own.tree}", f"--tree={inner.tree}"]
    try:
        _, pid = qemu(machines, memory, *options)
        assert groups.pids("vm") == [pid]
        [supervisor] = groups.pids(SUPERVISORS)
        assert supervisor != pid
        wrong = [tree for tree in groups.trees if pid not in _pids(tree.mount, groups, "vm")]
        assert not wrong, "hierarchies that it is not in"
        os.kill(supervisor, 9)
        eventually(lambda: not groups.pids("vm"), "its end")
    finally:
        asyncio.run(groups.destroy("vm"))
        groups.teardown()
        home.rmdir()


def _pids(mount: Path, groups: Cgroups, instance: str) -> list[int]:
    return [int(n) for n in (mount / groups.parent / instance / "cgroup.procs").read_text().split()]


def test_kvm_is_there_when_it_is_asked_for(machines: Lab) -> None:
    look = "import os, socket, sys; s = os.stat('/dev/kvm'); o = os.open('/dev/kvm', os.O_RDWR)\n"
    look += "socket.socket(fileno=int(sys.argv[1])).sendall(b'%d %o\\n' % (s.st_rdev, s.st_mode))"
    argv = ["/usr/bin/python3", "-ISc", look, "@console@"]
    machine = machines.start("--resumed", "--kvm", argv=argv)
    if not os.path.exists("/dev/kvm"):
        assert b"its devices" in machine.first.hears(Tell.FAILED)
        return
    eventually(lambda: machine.file("console"), "what it has seen")
    assert machine.file("console") == f"{os.stat('/dev/kvm').st_rdev} 20600\n"
