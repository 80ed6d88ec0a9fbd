"""The guest agent in a real VM: this process speaks the host's side of guest/frames.h."""

from __future__ import annotations

import io
import re
import signal
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import eventually
from guestlab import DEADLINE, Gone, Machine, machine, make_image, newest_kernel

NIC = "nic=0 52:54:00:00:00:09 10.9.8.7/24 10.9.8.1"
APP = ("arg=sleep", "arg=infinity", NIC)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Iterator[Machine]:
    """A running instance, for tests that leave nothing behind."""
    with machine(tmp_path_factory.mktemp("guest"), image) as made:
        made.configure(*APP, "sysctl=kernel.panic 7", "file=/etc/hosts\n10.9.8.7 guest\n").expect(
            "s"
        )
        yield made


@pytest.fixture
def waiting(tmp_path: Path, image: Path) -> Iterator[Machine]:
    """A booted machine that is no instance yet."""
    with machine(tmp_path / "machine", image) as made:
        yield made


def clean(disk: Path) -> bool:
    """Whether an ext4 file system was left with nothing in its journal."""
    text = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True)
    return "needs_recovery" not in text.stdout


def refused(guest: Machine, *items: str) -> tuple[int, str]:
    """What a process that cannot be started is refused with."""
    channel = guest.link.open()
    channel.request("e", [*items, "env=PATH=/bin"])
    code, _, text = channel.expect("f").decode().partition(":")
    with pytest.raises(Gone):
        channel.receive()
    channel.close()
    return int(code), text


def test_main_process_and_the_end(waiting: Machine) -> None:
    script = "echo hello; read line; echo got $line; echo bad >&2; touch /kept; exit 3"
    waiting.configure("arg=sh", "arg=-c", f"arg={script}", "stdin=1").expect("s")
    main = waiting.link.channels[0]
    main.until(b"hello\n")
    main.send("i", b"more\n")
    main.send("c")
    code, out, errors = main.collect()
    assert (code, out, errors) == (3, b"got more\n", b"bad\n")
    assert waiting.process.wait(DEADLINE) == 0
    disk = waiting.directory / "disk.img"
    assert clean(disk)
    listed = subprocess.run(
        ["debugfs", "-R", "ls -p /upper", disk], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split("/")[5] for line in listed.splitlines() if line.startswith("/")}
    assert names - {".", ".."} == {"kept"}, "mounts of the instance left traces in its layer"


def test_end_is_told_to_who_does_not_read(waiting: Machine) -> None:
    """What it has written is waited for, for a while; its exit code is told in any case."""
    script = "head -c 100000 /dev/zero & read line; exit 4"
    waiting.configure("arg=sh", "arg=-c", f"arg={script}", "stdin=1").expect("s")
    main = waiting.link.channels[0]
    main.stalled = True
    first = main.expect("o")
    main.send("i", b"on\n")
    code, rest, _ = main.collect()
    assert code == 4
    assert 0 < len(first) + len(rest) < 1 << 16
    assert waiting.process.wait(DEADLINE) == 0


def test_command_that_is_not_there(waiting: Machine) -> None:
    channel = waiting.configure("arg=nothing")
    assert channel.expect("f") == b"127:No such command in the image: `nothing` not found in $PATH."


def test_world(guest: Machine) -> None:
    assert guest.run("busybox", "hostname") == "guest\n"
    assert guest.run("cat", "/etc/hosts") == "10.9.8.7 guest\n"
    assert guest.run("cat", "/proc/sys/kernel/panic") == "7\n"
    assert "inet 10.9.8.7/24" in (shown := guest.run("busybox", "ip", "address"))
    assert "52:54:00:00:00:09" in shown
    assert "inet6" not in shown
    assert "default via 10.9.8.1 dev eth0" in guest.run("busybox", "ip", "route")
    mounts = {line.split()[2]: line for line in guest.run("mount").splitlines()}
    kinds = {"/": "overlay", "/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"}
    kinds |= {"/dev/pts": "devpts", "/dev/shm": "tmpfs", "/sys/fs/cgroup": "cgroup2"}
    assert {path: mounts[path].split()[4] for path in kinds} == kinds
    release = newest_kernel().name
    assert "modules.dep" in guest.run("ls", f"/lib/modules/{release}").split()
    began = time.time()
    assert began - 5 < int(guest.run("busybox", "date", "+%s")) < time.time() + 5
    assert guest.run("busybox", "stat", "-c", "%a", "/") == "751\n"
    assert re.fullmatch(r"[0-9a-f-]{36}\n", guest.run("cat", "/run/sublet/generation"))


def test_kernel_finds_its_modules(guest: Machine) -> None:
    """The image has no modprobe: the kernel takes ours."""
    assert "xfs" not in guest.run("cat", "/proc/filesystems").split()
    channel = guest.execute("mount", "-t", "xfs", "/dev/vda", "/tmp")
    channel.send("c")
    assert channel.collect()[0] != 0
    channel.close()
    assert "xfs" in guest.run("cat", "/proc/filesystems").split()


def test_exec(guest: Machine) -> None:
    channel = guest.execute("sh", "-c", "cat; echo err >&2; exit 7", extra=("cwd=/tmp",))
    channel.send("i", b"in")
    channel.send("c")
    assert channel.collect() == (7, b"in", b"err\n")
    with pytest.raises(Gone):
        channel.receive()
    channel.close()
    assert guest.run("busybox", "pwd", extra=("cwd=/tmp",)) == "/tmp\n"
    assert guest.run("sh", "-c", "ulimit -n", extra=("ulimit=nofile 100 200",)) == "100\n"


@pytest.mark.parametrize(
    ("user", "groups", "shown"),
    [
        ("web", (), "uid=33(web) gid=33(web) groups=44(media)"),
        ("web:root", (), "uid=33(web) gid=0(root)"),
        ("1234:56", ("media",), "uid=1234 gid=56 groups=44(media)"),
        ("", (), "uid=0(root) gid=0(root)"),
    ],
)
def test_users(guest: Machine, user: str, groups: tuple[str, ...], shown: str) -> None:
    extra = (f"user={user}", *(f"group={group}" for group in groups))
    assert guest.run("id", extra=extra).strip() == shown
    home = "/tmp" if user.startswith("web") else "/" if user else "/root"
    assert guest.run("sh", "-c", "echo $HOME", extra=extra) == f"{home}\n"


def test_refusals(guest: Machine) -> None:
    assert refused(guest, "arg=/bin/nothing") == (
        127,
        "No such command in the image: `/bin/nothing`: No such file or directory.",
    )
    code, text = refused(guest, "arg=/etc/passwd")
    assert (code, text) == (
        126,
        "The command cannot be executed: `/etc/passwd`: Permission denied.",
    )
    code, text = refused(guest, "arg=/tmp")
    assert (code, text) == (126, "The command cannot be executed: `/tmp`: Permission denied.")
    assert refused(guest, "arg=id", "cwd=/nowhere")[0] == 126
    assert refused(guest, "arg=id", "user=nobody") == (124, "The image has no user 'nobody'.")
    assert refused(guest, "env=A=b") == (125, "There is no command to run.")


def test_terminal(guest: Machine) -> None:
    channel = guest.execute("sh", extra=("tty=1", "env=PS1=> "))
    channel.send("w", struct.pack("<ii", 33, 99))
    channel.send("i", b"stty size; echo $((6*7)); tty\n")
    seen = channel.until(b"/dev/pts/0\r\n")
    assert b"33 99\r\n" in seen
    assert b"42\r\n" in seen
    channel.send("i", b"(echo be''gun; sleep 100)\n")
    channel.until(b"begun\r\n")
    channel.send("i", b"\x03")
    channel.send("i", b"echo alive; exit 5\n")
    channel.until(b"alive\r\n")
    assert channel.collect()[0] == 5
    channel.close()


def test_signals(guest: Machine) -> None:
    channel = guest.execute("sleep", "1000")
    channel.send("k", struct.pack("<i", signal.SIGTERM))
    assert channel.collect()[0] == 128 + signal.SIGTERM
    channel.close()


def test_client_that_goes(guest: Machine) -> None:
    """What it started ends with it, what that started too, and the channel is free again."""
    channel = guest.execute("sh", "-c", "sleep 4321 & sleep 4322")
    channel.close()
    with pytest.raises(Gone):
        channel.receive()
    eventually(lambda: "sleep 432" not in guest.run("ps", "-o", "args"), "all that it started ends")
    again = guest.link.open()
    assert again.number != channel.number
    again.close()
    with pytest.raises(Gone):
        again.receive()


def test_many_at_once(guest: Machine) -> None:
    channels = [guest.execute("sh", "-c", f"read x; echo {n} $x") for n in range(40)]
    for channel in channels:
        channel.send("i", b"line\n")
    for number, channel in enumerate(channels):
        assert channel.collect()[:2] == (0, f"{number} line\n".encode())
        channel.close()


def test_slow_client_stops_nobody(guest: Machine) -> None:
    size = 1 << 20
    slow = guest.execute("head", "-c", str(size), "/dev/zero")
    slow.stalled = True
    got = 0
    while got < (1 << 16) - (1 << 15):  # all that its credit lets through
        got += len(slow.receive()[1])
    assert guest.run("echo", "hello") == "hello\n"
    assert len(guest.run("head", "-c", str(size), "/dev/zero")) == size
    slow.go_on()
    code, rest, _ = slow.collect()
    slow.close()
    assert (code, got + len(rest)) == (0, size)


def test_input_is_held_back(guest: Machine) -> None:
    """A process that does not read stalls its own client alone; nothing of its input is lost."""
    slow = guest.execute("sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; busybox wc -c")
    slow.send("i", b"x" * (1 << 15))
    slow.send("i", b"x" * ((1 << 15) - 2))  # a pipe's worth goes in; the agent holds the rest
    assert guest.run("echo", "hello") == "hello\n"
    guest.run("busybox", "touch", "/tmp/go")
    for _ in range(6):
        slow.send("i", b"y" * (1 << 15))  # waits until the guest gives credit again
    slow.send("i", b"yy")
    slow.send("c")
    assert slow.collect()[1].strip() == str(1 << 18).encode()
    slow.close()


def test_large_request(guest: Machine) -> None:
    big = "z" * 100_000
    assert guest.run("sh", "-c", "echo ${#BIG}", extra=(f"env=BIG={big}",)) == "100000\n"


def test_request_that_is_too_large_is_refused_as_a_whole(guest: Machine) -> None:
    unlimited = "y" * (17 << 20)
    assert refused(guest, "arg=id", f"env=X={unlimited}", "user=web") == (
        125,
        "The machine has no room for a request that large.",
    )
    assert guest.run("id", "-u") == "0\n"


def test_files_in_and_out(guest: Machine) -> None:
    """`tool`: our busybox in the instance's root, which needs no tar of its own."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("in/file")
        info.size, info.mode, info.uid = 200_000, 0o640, 33
        archive.addfile(info, io.BytesIO(b"t" * info.size))
    into = guest.execute("tar", "-xf", "-", "-C", "/tmp", extra=("tool=1",))
    data = packed.getvalue()
    for start in range(0, len(data), 1 << 15):
        into.send("i", data[start : start + (1 << 15)])
    into.send("c")
    assert into.collect() == (0, b"", b"")
    into.close()
    assert (
        guest.run("stat", "-c", "%a %u %s", "/tmp/in/file", extra=("tool=1",)) == "640 33 200000\n"
    )
    out = guest.execute("tar", "-cf", "-", "-C", "/tmp", "in", extra=("tool=1",))
    out.send("c")
    code, archive_bytes, _ = out.collect()
    out.close()
    assert code == 0
    with tarfile.open(fileobj=io.BytesIO(archive_bytes)) as archive:
        assert archive.getmember("in/file").mode == 0o640
    guest.run("busybox", "rm", "-r", "/tmp/in")
