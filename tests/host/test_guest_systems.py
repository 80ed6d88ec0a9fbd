"""What a guest is given besides its image: volumes, memory disks, init systems, whole disks."""

from __future__ import annotations

import signal
import struct
import subprocess
from pathlib import Path

import pytest
from guestlab import KERNELS, Machine, machine, make_disk, make_image

MAIN = ("arg=sleep", "arg=infinity")
INIT = ("arg=/sbin/init",)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


def test_volumes(tmp_path: Path, image: Path) -> None:
    volumes = (
        ("vol0", make_disk(tmp_path / "vol0.img", "data"), False),
        ("vol1", make_disk(tmp_path / "vol1.img"), True),
    )
    given = ("disk=vol0 /srv/data rw fill", "disk=vol1 /a place ro")
    with machine(tmp_path / "m", image, *volumes) as guest:
        guest.configure(
            *MAIN,
            *given,
            "tmpfs=/cache size=1m,noexec",
            "tmpfs=/plain",
            "shm=2097152",
            "readonly=1",
        ).expect("s")
        assert guest.run("cat", "/srv/data/given") == "by the image\n"
        guest.run("sh", "-c", "echo kept >/srv/data/file; >/cache/file")
        lines = {
            line.split(" on ")[1].split(" type ")[0]: line
            for line in guest.run("mount").splitlines()
        }
        assert "ext4 (rw" in lines["/srv/data"]
        assert "ext4 (ro" in lines["/a place"]
        assert "noexec" in lines["/cache"]
        assert "size=1024k" in lines["/cache"]
        assert "size=2048k" in lines["/dev/shm"]
        assert "(ro" in lines["/"]
        guest.link.open().send("k", struct.pack("<i", signal.SIGTERM))
        assert guest.link.channels[0].collect()[0] == 128 + signal.SIGTERM
        assert guest.process.wait(60) == 0
    for name in ("vol0.img", "m/disk.img"):
        done = subprocess.run(["e2fsck", "-fn", tmp_path / name], capture_output=True, text=True)
        assert "recover" not in name + done.stdout + done.stderr
        assert done.returncode == 0, done.stdout
    argv = ["debugfs", "-R", "cat /data/file", tmp_path / "vol0.img"]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == "kept\n"


def test_disk_that_has_grown(tmp_path: Path, image: Path) -> None:
    disk = make_disk(tmp_path / "disk.img", "upper", "work")
    with disk.open("r+b") as file:
        file.truncate(256 << 20)
    with machine(tmp_path / "m", image, disk=disk) as guest:
        guest.configure(*MAIN).expect("s")
        blocks = guest.run("busybox", "df", "-m", "/").splitlines()[1].split()[1]
        assert int(blocks) > 200


def test_corrupt_disk(tmp_path: Path, image: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(16 << 20))
    with machine(tmp_path / "m", image, disk=disk) as guest:
        answer = guest.configure(*MAIN).expect("f").decode()
        assert answer.startswith("125:The writable disk cannot be mounted: ")


def shut_down(guest: Machine) -> None:
    guest.link.open().send("k", struct.pack("<i", signal.SIGTERM))
    assert guest.process.wait(60) == 0, guest.console()


def test_init_system(tmp_path: Path, image: Path) -> None:
    with machine(tmp_path / "m", image) as guest:
        guest.configure(*INIT, "machine-id=" + "cd" * 16, mode="init").expect("s")
        assert "init" in guest.run("cat", "/proc/1/comm")
        assert guest.run("cat", "/etc/machine-id") == "cd" * 16 + "\n"
        assert guest.run("cat", "/etc/hostname") == "guest\n"
        agent = guest.run("sh", "-c", "grep -l @init /proc/[0-9]*/cmdline", extra=("tool=1",))
        assert agent.strip() != "/proc/1/cmdline"
        shut_down(guest)


@pytest.mark.slow
def test_reboot_inside(tmp_path: Path, image: Path) -> None:
    """The machine starts anew, and what was under way to the agent before is not taken for its."""
    with machine(tmp_path / "m", image) as guest:
        guest.configure(*INIT, mode="init").expect("s")
        guest.run("busybox", "touch", "/kept")
        guest.execute("busybox", "reboot")
        main = guest.link.channels[0]
        text = main.expect("R").decode()
        stale = guest.link.open()
        stale.send("C", b"garbage")
        guest.link.frame(0, "s", text.partition("sync=")[2].encode())
        guest.configure(*INIT, mode="init").expect("s")
        assert guest.run("ls", "/kept") == "/kept\n"
        shut_down(guest)


def test_init_that_is_not_there(tmp_path: Path, image: Path) -> None:
    with machine(tmp_path / "m", image) as guest:
        answer = guest.configure("arg=/sbin/nothing", mode="init").expect("f")
        assert answer.startswith(b"127:No such command in the image: `/sbin/nothing`")


def test_whole_disk(tmp_path: Path, image: Path) -> None:
    """A partitioned disk; the root is the largest partition that has an init."""
    tree = tmp_path / "tree"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-dest", tree, image], check=True)
    root = tmp_path / "root.img"
    root.write_bytes(b"")
    with root.open("ab") as made:
        made.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, root], check=True)
    disk = tmp_path / "disk.img"
    with disk.open("wb") as made:
        made.truncate(96 << 20)
    table = "label: gpt\nstart=2048, size=8192\nstart=10240, size=49152\nstart=61440, size=98304\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True)
    subprocess.run(
        ["dd", f"if={root}", f"of={disk}", "bs=1M", "seek=5", "conv=notrunc"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    with machine(tmp_path / "m", None, disk=disk) as guest:
        guest.configure(*INIT, "rootdisk=1", mode="init").expect("s")
        root_line = next(line for line in guest.run("mount").splitlines() if " on / " in line)
        assert root_line.startswith("/dev/vdb2 on / type ext4 (rw")
        release = max(each.name for each in KERNELS.iterdir())
        assert "modules.dep" in guest.run("ls", f"/lib/modules/{release}")
        shut_down(guest)


def test_panic(tmp_path: Path, image: Path) -> None:
    with machine(tmp_path / "m", image) as guest:
        guest.configure(*MAIN).expect("s")
        guest.execute("sh", "-c", "echo c >/proc/sysrq-trigger")
        assert guest.process.wait(60) == 1
        assert "Kernel panic - not syncing: sysrq triggered crash" in guest.console()


def test_host_that_leaves(tmp_path: Path, image: Path) -> None:
    """Nobody at the other end: the agent goes on, and does not spin."""
    with machine(tmp_path / "m", image) as guest:
        guest.configure(*MAIN).expect("s")
        assert guest.run("echo", "here") == "here\n"
        guest.link.leave()
        before = cpu(guest.process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            guest.process.wait(2)
        assert cpu(guest.process.pid) - before < 100


def cpu(pid: int) -> int:
    """Ticks of processor time, of which there are 100 a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
