"""Copies in and out of instances: Docker's rules, and what a hostile instance makes of them."""

from __future__ import annotations

import gzip
import io
import os
import signal
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually

import sublet as package
from sublet.sdk import AsyncClient, Client


@pytest.fixture
def box(sublet: Sublet) -> Iterator[Sublet]:
    """A daemon with a running instance `box`."""
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "1000")
    yield sublet
    sublet("rm", "-f", "box")


@pytest.fixture(params=["running", "stopped"])
def either(request: pytest.FixtureRequest, box: Sublet) -> Sublet:
    """As `box`, running or stopped."""
    if request.param == "stopped":
        box.ok("stop", "-t", "0", "box")
    return box


def members(box: Sublet, path: str, *flags: str) -> dict[str, tarfile.TarInfo]:
    argv = [*flags, f"box:{path}", "-"]
    return {member.name: member for member in archive(box, *argv).getmembers()}


def archive(box: Sublet, *argv: str) -> tarfile.TarFile:
    with box.spawn("cp", *argv) as process:
        assert process.stdout is not None
        data = process.stdout.buffer.read()  # type: ignore[attr-defined]
        assert process.stderr is not None
        assert process.wait() == 0, process.stderr.read()
    return tarfile.open(fileobj=io.BytesIO(data))


def sh(box: Sublet, script: str) -> str:
    return box.ok("exec", "box", "sh", "-c", script)


def test_there_and_back(either: Sublet, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("content")
    (source / "sub/file").chmod(0o640)
    (source / "link").symlink_to("sub/file")
    os.chown(source / "sub/file", 1234, 1235)
    for target in ("/srv", "/srv/new", "srv/other/"):  # there; not there; not there
        either.ok("cp", str(source), f"box:{target}")
    either.ok("cp", f"{source}/.", "box:/mnt")
    for there in ("/srv/source", "/srv/new", "/srv/other", "/mnt"):
        either.ok("cp", f"box:{there}/.", str(tmp_path / "back"))
        back = tmp_path / "back"
        assert (back / "sub/file").read_text() == "content"
        assert (back / "sub/file").stat().st_mode & 0o7777 == 0o640
        assert (back / "sub/file").stat().st_mtime // 1 == (
            source / "sub/file"
        ).stat().st_mtime // 1
        assert os.readlink(back / "link") == "sub/file"
        subprocess.run(["rm", "-r", str(back)], check=True)
    found = members(either, "/srv/source")
    assert {(m.uid, m.gid) for m in found.values()} == {(0, 0)}
    assert set(found) == {f"source{end}" for end in ("", "/link", "/sub", "/sub/file")}


def test_owners_are_kept_if_asked(either: Sublet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 1234, 1235)
    either.ok("cp", "-a", str(tmp_path / "file"), "box:/srv/")
    assert (members(either, "/srv/file")["file"].uid) == 1234
    either.ok("cp", "-a", "box:/srv/file", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_gid == 1235
    either.ok("cp", "box:/srv/file", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_uid == 0
    os.chown(tmp_path / "file", 70000, 70000)
    outcome = either("cp", "-a", str(tmp_path / "file"), "box:/srv/")
    assert (outcome.code, "owner 70000:70000" in outcome.err) == (1, True)


def test_files_and_their_destinations(either: Sublet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("new")
    file = str(tmp_path / "file")
    either.ok("cp", file, "box:/srv/a")
    either.ok("cp", file, "box:/srv/a")
    either.ok("cp", file, "box:/srv")
    either.ok("cp", "box:/srv/a", str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "new"
    assert set(members(either, "/srv")) == {"srv", "srv/a", "srv/file"}
    for arguments, says in (
        ((file, "box:/srv/none/"), "no directory /srv/none"),
        ((file, "box:/srv/none/x"), "There is no"),
        ((file, "box:/srv/a/"), "not a directory"),
        ((str(tmp_path), "box:/srv/a"), "is a file"),
        (("box:/srv", file), "is a file"),
        (("box:/none", file), "There is no /none"),
        ((f"{file}.none", "box:/srv"), "There is no"),
        (("gone:/srv", file), "no instance 'gone'"),
        (("box:/srv/a", "box:/srv/b"), "from one instance to another"),
        ((file, file), "Neither side"),
    ):
        outcome = either("cp", *arguments)
        assert (outcome.code != 0, outcome.out) == (True, ""), arguments
        assert says in outcome.err, (arguments, outcome.err)
    assert (tmp_path / "file").read_text() == "new"


def test_symbolic_links_at_either_end(box: Sublet, tmp_path: Path) -> None:
    sh(box, "mkdir /srv/d; echo real > /srv/d/f; cd /srv; ln -s d dl; ln -s d/f fl; ln -s d/n nl")
    assert members(box, "/srv/fl")["fl"].issym()
    assert members(box, "/srv/fl", "-L")["fl"].isreg()
    assert members(box, "/srv/dl/.").keys() == {".", "./f"}
    (tmp_path / "file").write_text("new")
    for target in ("fl", "dl", "nl"):
        box.ok("cp", str(tmp_path / "file"), f"box:/srv/{target}")
    assert (
        sh(box, "cd /srv; cat d/f d/file d/n; test -L fl -a -L dl -a -L nl; echo $?")
        == "newnewnew0"
    )


def test_tar_streams(either: Sublet, tmp_path: Path) -> None:
    (tmp_path / "t/lib").mkdir(parents=True)
    (tmp_path / "t/lib/here").write_text("x")
    argv = ["tar", "-C", str(tmp_path / "t"), "-c", "lib/here"]
    data = subprocess.run(argv, capture_output=True, check=True).stdout.decode()
    either.ok("cp", "-", "box:/", input=data)  # /lib is a link to usr/lib
    assert members(either, "/usr/lib/here")["here"].isreg()
    assert either("cp", "-", "box:/etc/passwd", input=data).code == 1
    outcome = either("cp", "-", "box:/srv", input="no archive, though as long as a block " * 40)
    assert (outcome.code, "no tar archive" in outcome.err) == (1, True)
    assert either("cp", "-", "box:/srv", input=data[:1000]).code == 1


def test_mounts_are_seen_and_their_access_holds(sublet: Sublet, tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol/file").write_text("there")
    volumes = ["-v", f"{tmp_path}/vol:/data", "-v", f"{tmp_path}/vol:/ro:ro"]
    sublet.ok("run", "-d", "--name", "box", *volumes, BASE, "sleep", "1000")
    sublet.ok("cp", "box:/ro/file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "there"
    sublet.ok("cp", str(tmp_path / "copy"), "box:/data")
    assert (tmp_path / "vol/copy").stat().st_uid == 0
    outcome = sublet("cp", str(tmp_path / "copy"), "box:/ro/")
    assert (outcome.code, "read-only mount" in outcome.err) == (1, True)
    outcome = sublet("cp", str(tmp_path / "copy"), "box:/etc/hosts")
    assert (outcome.code, "something is mounted there" in outcome.err) == (1, True)
    whole = archive(sublet, "box:/", "-").getnames()
    assert "./data/file" in whole
    assert not [name for name in whole if name.startswith(("./proc/", "./sys/"))]


def test_a_stopped_instance_has_its_volumes(sublet: Sublet, tmp_path: Path) -> None:
    (tmp_path / "bind").mkdir()
    (tmp_path / "bind/file").write_text("there")
    volumes = [
        "-v",
        f"{tmp_path}/bind:/new/deep",
        "-v",
        f"{tmp_path}/bind:/ro:ro",
        "-v",
        "kept:/srv",
    ]
    volumes += ["-v", f"{tmp_path}/bind/file:/etc/one"]
    sublet.ok("create", "--name", "box", *volumes, BASE, "cat", "/srv/copy")
    sublet.ok("cp", "box:/new/deep/file", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "there"
    for target in ("new/deep", "srv"):
        sublet.ok("cp", str(tmp_path / "copy"), f"box:{target}")
    assert (tmp_path / "bind/copy").stat().st_uid == 0
    outcome = sublet("cp", str(tmp_path / "copy"), "box:/ro/x")
    assert (outcome.code, "read-only mount" in outcome.err) == (1, True)
    assert members(sublet, "/etc/one")["one"].size == 5
    sublet.ok("start", "box")
    sublet.ok("wait", "box")
    assert sublet.ok("logs", "box") == "there"
    with sublet.spawn("export", "box") as process:
        assert process.stdout is not None
        data = process.stdout.buffer.read()  # type: ignore[attr-defined]
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        assert not {"./srv/copy", "./new/deep/file"} & set(read.getnames())
    sublet.ok("rm", "box")
    sublet.ok("volume", "rm", "kept")


# What hostile instances try


def test_swapped_links_do_not_lead_out(box: Sublet, tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2019-10152, CVE-2026-41568: a component of the path is by turns a
    directory and a link to the root, below which host and instance have the same path."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("of the host")
    script = f"mkdir -p {secret} /t{secret}; echo mine | tee {secret}/file > /t{secret}/file; "
    script += "touch /ready; while :; do mv /t /u; ln -s ../../../../../.. /t; rm /t; "
    script += "ln -s /proc/1/root /t; rm /t; mv /u /t; done"
    with box.spawn("exec", "box", "sh", "-c", script) as swapping:
        eventually(lambda: box("exec", "box", "test", "-e", "/ready").code == 0, "it swaps")
        served = number = 0
        while number < 12 or (not served and number < 100):
            number += 1
            target = tmp_path / f"got{number}"
            served += box("cp", f"box:/t{secret}/file", str(target)).code == 0
            box("cp", str(secret / "file"), f"box:/t{secret}/into")
            if target.is_file():
                assert target.read_text() == "mine\n"
        os.killpg(swapping.pid, signal.SIGKILL)
    assert served
    assert os.listdir(secret) == ["file"]
    assert (secret / "file").read_text() == "of the host"


@pytest.mark.parametrize("link", ["/", "../../../../../../..", "/proc/1/root", "/proc/self/root"])
def test_links_stay_inside(either: Sublet, tmp_path: Path, link: str) -> None:
    """CVE-2026-42306, CVE-2024-21626 and their kind."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "way").symlink_to(link)
    either.ok("cp", str(tmp_path / "way"), "box:/srv/way")
    either("cp", str(tmp_path / "file"), f"box:/srv/way{tmp_path}/hit")
    either("cp", f"box:/srv/way{tmp_path}/file", str(tmp_path / "got"))
    either("cp", "-L", "box:/srv/way/etc/hostname", str(tmp_path / "name"))
    assert sorted(os.listdir(tmp_path)) in (["file", "way"], ["file", "name", "way"])
    host = Path("/etc/hostname").read_text()
    assert not (tmp_path / "name").exists() or (tmp_path / "name").read_text() != host


def test_nothing_of_the_instance_is_executed(box: Sublet, tmp_path: Path) -> None:
    """CVE-2019-14271, CVE-2026-41567: its libraries, its Python, its tar are traps."""
    trap = "#!/bin/sh\ntouch /sprung\nexit 1\n"
    (tmp_path / "trap").write_text(trap)
    (tmp_path / "trap").chmod(0o755)
    (tmp_path / "trap.py").write_text("open('/sprung', 'w')\n")
    for name in ("/usr/bin/tar", "/bin/cp", "/usr/bin/python3", str(Path(os.sys.executable))):
        box("exec", "box", "mkdir", "-p", os.path.dirname(name))
        box.ok("cp", str(tmp_path / "trap"), f"box:{name}")
    home = Path(package.__file__).parent
    for name in (
        f"{home}/archive/unpack.py",
        f"{home}/__init__.py",
        "/usr/lib/python3/encodings.py",
    ):
        sh(box, f"mkdir -p {os.path.dirname(name)}")
        box.ok("cp", str(tmp_path / "trap.py"), f"box:{name}")
    sh(box, "printf /evil.so > /etc/ld.so.preload; printf 'passwd: evil' > /etc/nsswitch.conf")
    assert members(box, "/etc/passwd")["passwd"].isreg()
    assert box("cp", "box:/none", str(tmp_path)).code == 1
    assert "/sprung" not in [f"/{name[2:]}" for name in archive(box, "box:/.", "-").getnames()]


def test_fifos_sockets_and_devices_do_not_hang(box: Sublet, tmp_path: Path) -> None:
    """CVE-2024-9676."""
    script = (
        'use Socket; mkdir "/t"; system "mkfifo", "/t/fifo"; socket S, AF_UNIX, SOCK_STREAM, 0;'
    )
    script += ' bind S, sockaddr_un("/t/socket"); open F, ">", "/t/file"'
    box.ok("exec", "box", "perl", "-e", script)
    found = members(box, "/t")
    assert set(found) == {"t", "t/fifo", "t/file"}
    box.ok("cp", "box:/t", str(tmp_path / "t"))
    assert stat.S_ISFIFO((tmp_path / "t/fifo").stat().st_mode)
    for path in ("/t/fifo", "/t/socket", "/dev/null", "/dev/zero"):
        outcome = box("cp", f"box:{path}", str(tmp_path / "x"))
        assert (outcome.code, "nothing to copy" in outcome.err) == (1, True), path
    outcome = box("cp", "box:/dev/pts", str(tmp_path / "dev"))
    assert (outcome.code, "devices left out: 1" in outcome.err) == (0, True)
    assert not [p for p in (tmp_path / "dev").rglob("*") if p.is_char_device()]


def test_set_user_id_stays_inside(box: Sublet, tmp_path: Path) -> None:
    sh(box, "cp /bin/true /srv/su; chmod 6755 /srv/su")
    box.ok("cp", "-a", "box:/srv/su", str(tmp_path / "su"))
    assert (tmp_path / "su").stat().st_mode & 0o7777 == 0o755
    box.ok("cp", "box:/srv", str(tmp_path / "srv"))
    (tmp_path / "srv/su").chmod(0o4755)
    box.ok("cp", str(tmp_path / "srv/su"), "box:/srv/again")
    assert sh(box, "stat -c %a:%u /srv/again") == "4755:0"


def test_sparse_files_and_odd_names(box: Sublet, tmp_path: Path) -> None:
    sh(box, "mkdir /t; truncate -s 100G /t/bomb; printf x > '/t/a\nb\033[31m'; touch /t/-rf")
    box.ok("cp", "box:/t", str(tmp_path))
    assert (tmp_path / "t/bomb").stat().st_size == 100 << 30
    assert (tmp_path / "t/bomb").stat().st_blocks < 1000
    assert (tmp_path / "t/a\nb\033[31m").read_text() == "x"
    assert (tmp_path / "t/-rf").exists()


def test_very_deep_directories(box: Sublet, tmp_path: Path) -> None:
    box.ok("exec", "box", "perl", "-e", 'for (1..3000) { mkdir "d"; chdir "d" } open F, ">", "end"')
    names = archive(box, "box:/d", "-").getnames()
    assert (len(names), names[-1].count("/")) == (3001, 3000)


# What ends early


def test_removal_ends_a_stalled_export(box: Sublet) -> None:
    """Whoever reads slowly keeps neither a running instance nor a stopped one."""
    box.ok("stop", "-t", "0", "box")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(box.run_dir / "sublet.sock"))
        client.sendall(b"GET /v1/instances/box/export HTTP/1.1\r\nHost: sublet\r\n\r\n")
        client.settimeout(60)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        box.ok("rm", "box", timeout=60)
        data = b""
        while piece := client.recv(1 << 20):
            data += piece
        assert not data.endswith(b"0\r\n\r\n")


def test_a_cut_stream_is_an_error(box: Sublet, tmp_path: Path) -> None:
    with box.spawn("cp", "box:/", "-") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(1 << 16)) == 1 << 16
        box.ok("rm", "-f", "box")
        process.stdout.buffer.read()  # type: ignore[attr-defined]
        assert process.wait(60) == 1
        assert "cut off" in process.stderr.read()


def test_an_interrupted_copy_leaves_no_half_file(box: Sublet, tmp_path: Path) -> None:
    sh(box, "head -c 300M /dev/zero > /srv/big")
    (tmp_path / "into").mkdir()

    def arriving(where: Callable[[], bool]) -> None:
        eventually(where, "the copy has begun")

    with box.spawn("cp", "box:/srv/big", str(tmp_path / "into/big")) as process:
        arriving(lambda: bool(os.listdir(tmp_path / "into")))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) in (0, 130)
        left = os.listdir(tmp_path / "into")
        assert left == ([] if process.returncode else ["big"])
    with box.spawn("cp", "-", "box:/srv", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        header = tarfile.TarInfo("half")
        header.size = 1 << 20
        process.stdin.buffer.write(header.tobuf() + bytes(1000))  # type: ignore[attr-defined]
        process.stdin.flush()
        arriving(lambda: ".sublet-" in sh(box, "ls -A /srv"))
        os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
    eventually(lambda: sh(box, "ls -A /srv") == "big", "the half file is gone")


# The SDK


async def test_from_python(box: Sublet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 << 20))
    for number, client in enumerate((AsyncClient(f"{box.run_dir}/sublet.sock"),)):
        counted: list[int] = []
        await client.copy_to("box", str(tmp_path / "file"), "/srv", meter=counted.append)
        assert sum(counted) > 3 << 20
        assert await client.copy_from("box", "/srv/file", str(tmp_path / f"b{number}")) == {
            "count": 1,
            "left_out": 0,
        }
        assert (tmp_path / f"b{number}").read_bytes() == (tmp_path / "file").read_bytes()
        stream = [piece async for piece in client.archive("box", "/srv/file")]
        await client.extract("box", "/mnt", [gzip.compress(b"".join(stream))])
    blocking = Client(f"{box.run_dir}/sublet.sock").get("box")
    blocking.copy_from("/mnt/file", str(tmp_path / "c"))
    assert (tmp_path / "c").read_bytes() == (tmp_path / "file").read_bytes()
    blocking.copy_to(str(tmp_path / "c"), "/mnt/c")
    assert sh(box, "cmp /mnt/c /srv/file && echo same") == "same"


def test_bodies_of_other_requests_stay_small(box: Sublet) -> None:
    """CVE-2026-34040: only the files of a copy may be long, and no other path is taken for it."""
    for line in ("POST /v1/instances/box/archive", "PUT /v1/instances/x/y/archive"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(box.run_dir / "sublet.sock"))
            head = f"{line} HTTP/1.1\r\nHost: sublet\r\nContent-Length: {5 << 20}\r\n\r\n"
            client.sendall(head.encode())
            client.settimeout(30)
            assert client.recv(12) in (b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 400")
