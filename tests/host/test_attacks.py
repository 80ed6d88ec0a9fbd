"""What a hostile tenant, image or client tries, and what becomes of it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually

from sublet.domain.config import Config
from sublet.drivers import mount

DEEP = 'for (1..3000) { mkdir "d"; chdir "d" or die }; open F, ">", "/deep"; sleep 600'
"""A directory 3000 levels deep: deeper than Python's recursion."""

CLONE_NEWUSER = 0x10000000


def test_directories_too_deep_for_python_are_removed(own: Sublet) -> None:
    own.ok("run", "-d", "--name", "deep", BASE, "perl", "-e", DEEP)
    eventually(lambda: own("exec", "deep", "test", "-e", "/deep").code == 0, "/deep")
    own.ok("run", "-d", "--name", "again", BASE, "perl", "-e", DEEP)
    eventually(lambda: own("exec", "again", "test", "-e", "/deep").code == 0, "/deep")
    own.ok("rm", "-f", "deep")
    own.kill_daemon()
    assert own.json("ps", "--json")[0]["name"] == "again"
    own.ok("rm", "-f", "again")
    assert list((own.root / "instances").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (102, (38, 5, 0)),  # socketcall: AF_ALG
        (102, (40, 1, 0)),  # socketcall: AF_VSOCK
        (359, (38, 5, 0)),  # socket: AF_ALG
        (310, (CLONE_NEWUSER, 0, 0)),  # unshare
    ],
)
def test_32_bit_system_calls_are_filtered_too(
    sublet: Sublet, tmp_path: Path, number: int, arguments: tuple[int, int, int]
) -> None:
    program = tmp_path / "gate"
    program.write_bytes(gate(number, arguments))
    program.chmod(0o755)
    code = sublet("run", "--rm", "-v", f"{program}:/gate:ro", BASE, "/gate").code
    assert code in (errno.EPERM, errno.ENOSYS)


def test_no_namespaces_mounts_or_keyrings_inside(sublet: Sublet) -> None:
    calls = {"unshare": f"272, {CLONE_NEWUSER}", "clone": f"56, {CLONE_NEWUSER | 17}, 0, 0, 0, 0"}
    calls |= {"mount": "165, $n, $m, $t, 0, 0", "keyctl": "250, 0, -3, 0, 0, 0"}
    calls |= {"clone3": "435, 0, 0", "io_uring": "425, 8, 0"}
    script = '$n = "n"; $m = "/mnt"; $t = "tmpfs";'
    script += "".join(f"print 0 + $!, chr 10 if syscall({c}) == -1;" for c in calls.values())
    found = sublet.ok("run", "--rm", BASE, "perl", "-e", script).split()
    assert len(found) == len(calls)
    assert set(found) <= {str(errno.EPERM), str(errno.ENOSYS)}


def test_ids_that_no_instance_has_are_refused(sublet: Sublet, tmp_path: Path) -> None:
    """setresuid(2) takes -1 for "leave it": the process would run as root."""
    file = pack(sublet, tmp_path, {"etc/passwd": "minus:x:4294967295:4294967295::/:/sh\n"})
    outcome = sublet("run", "--rm", "-u", "minus", file, "/sh", "-c", "echo up")
    assert (outcome.code, outcome.out) == (125, "")
    assert "no user 'minus'" in outcome.err


def test_a_directory_where_a_file_belongs(sublet: Sublet, tmp_path: Path) -> None:
    file = pack(sublet, tmp_path, {"etc/hosts/below": ""})
    outcome = sublet("run", "--rm", file, "/sh", "-c", "echo up")
    assert (outcome.code, outcome.out) == (125, "")
    assert "/etc/hosts" in outcome.err


@pytest.mark.parametrize("link", ["/proc", "/proc/sys", "../dev", "/nowhere/to/be/found"])
def test_an_image_cannot_lead_a_mount_elsewhere(sublet: Sublet, tmp_path: Path, link: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/data").symlink_to(link)
    (tmp_path / "volume").mkdir()
    file = pack(sublet, tmp_path, {})
    for destination in ("/data", "/data/kernel"):
        outcome = sublet("run", "--rm", "-v", f"{tmp_path}/volume:{destination}", file, "/sh")
        assert (outcome.code, "'/data'" in outcome.err or link in outcome.err) == (125, True)


def test_mounts_over_system_directories_and_in_each_other(sublet: Sublet, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").touch()
    for destination in ("//proc", "//dev/x", "///sys", "//"):
        assert sublet("run", "--rm", "-v", f"{tmp_path}:{destination}", BASE, "true").code == 125
    assert sublet("run", "--rm", "-v", f"{tmp_path}:/etc/passwd/x", BASE, "true").code == 125
    volumes = ["-v", f"{tmp_path}/inner:/data/in", "-v", f"{tmp_path}/outer:/data"]
    assert sublet.ok("run", "--rm", *volumes, BASE, "ls", "/data/in") == "file"


@pytest.mark.parametrize("verb", ["stop", "wait"])
def test_stop_and_wait_while_the_instance_starts(sublet: Sublet, verb: str) -> None:
    script = f"sleep {60 if verb == 'stop' else 1}; exit 7"
    with sublet.spawn("run", "--name", "early", BASE, "sh", "-c", script) as starting:
        eventually(lambda: sublet("inspect", "early").code == 0, "the instance is there")
        out = sublet.ok(verb, *(["-t", "0"] if verb == "stop" else []), "early")
        assert starting.wait(60) == (137 if verb == "stop" else 7)
    assert out == ("early" if verb == "stop" else "7")


def test_fixing_leaves_alone_what_starts_meanwhile(sublet: Sublet) -> None:
    def run(_: int) -> str:
        return sublet.ok("run", "--rm", BASE, "sh", "-c", "sleep 0.1; echo up")

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run, number) for number in range(24)]
        while not all(each.done() for each in runs):
            assert sublet.json("audit", "--fix", "--json") == []
        assert {each.result() for each in runs} == {"up"}


def test_run_directory_gone_under_the_resolver(own: Sublet) -> None:
    """As a tidy-up of temporary files would: dnsmasq lives on, without its directory."""
    own.ok("run", "-d", "--rm", BASE, "sleep", "60")
    own.clean()
    shutil.rmtree(own.run_dir / "dns")
    (own.run_dir / "dns.pid").unlink()
    own.kill_daemon()
    own.ok("run", "-d", "--name", "target", BASE, "sleep", "60")
    own.ok("run", "--rm", BASE, "getent", "hosts", "target")


def pack(sublet: Sublet, place: Path, files: dict[str, str]) -> str:
    """An image with a shell at /sh, and these files."""
    tree = place / "tree"
    linked = subprocess.run(["ldd", "/bin/dash"], capture_output=True, text=True, check=True)
    needed = [word for word in linked.stdout.split() if word.startswith("/")]
    for source, target in [("/bin/dash", "sh"), *((path, path[1:]) for path in needed)]:
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tree / target)
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    file = place / "image.sif"
    sublet.ok("pack", str(tree), "-o", str(file))
    return str(file)


def gate(number: int, arguments: tuple[int, int, int]) -> bytes:
    """A 32-bit ELF program that makes one system call and exits with its errno.

    `socketcall` gets the arguments in memory, the others in registers.
    """
    base, header = 0x08048000, 52 + 32
    one, two, three = (1, base + header, 0) if number == 102 else arguments
    move = [(0xB8, number), (0xBB, one), (0xB9, two), (0xBA, three)]  # eax, ebx, ecx, edx
    code = b"".join(struct.pack("<BI", opcode, value & 0xFFFFFFFF) for opcode, value in move)
    code += bytes.fromhex("cd80 f7d8 89c3 b801000000 cd80")  # int 0x80; exit(-eax)
    body = struct.pack("<3I", *arguments) + code
    size, entry = header + len(body), base + header + 12
    start = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    start += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    return start + struct.pack("<8I", 1, 0, base, base, size, size, 5, 4096) + body


def test_a_reader_that_stalls_does_not_keep_an_instance_from_ending(sublet: Sublet) -> None:
    """An export that nobody reads holds nothing but itself."""
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "100")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(sublet.run_dir / "sublet.sock"))
        client.sendall(b"GET /v1/instances/box/export HTTP/1.1\r\nHost: sublet\r\n\r\n")
        client.settimeout(60)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        sublet.ok("rm", "-f", "box", timeout=60)
    eventually(lambda: sublet("audit").code == 0, "the audit is clean")


def test_no_other_user_of_the_host_reaches_an_image_or_an_instance(sublet: Sublet) -> None:
    """An image's ids are the host's: a program with the setuid bit would make its user root."""
    instance = sublet.ok("run", "-d", BASE, "sleep", "60")
    base = mount.base(sublet.run_dir, Config(sublet.root, sublet.run_dir).identity)
    points = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    own = [words for words in points if words[4].startswith(f"{base}/")]
    images = [words for words in own if words[4].startswith(f"{base}/images/")]
    assert images
    assert all("nosuid" in words[5].split(",") for words in images)
    assert any(words[4].endswith(f"/{instance}/rootfs") for words in own)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    for words in own:
        if f"/{instance}/" in words[4] or words in images:
            assert subprocess.run([*nobody, "test", "-e", words[4]], check=False).returncode == 1


def test_descriptors_of_whoever_started_the_daemon_end_there(own: Sublet) -> None:
    """A lock or a pipe of the caller's would otherwise be held as long as the daemon lives."""
    own.ok("daemon", "--stop")
    reader, writer = os.pipe()
    start = ("run", "-d", "--name", "box", BASE, "sleep", "60")
    with own.spawn(*start, pass_fds=(writer,)) as starting:
        assert starting.wait(60) == 0
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b""  # ends when the last writer has closed it
    assert own.ok("exec", "box", "sh", "-c", "echo /proc/self/fd/*").split()[:3] == [
        f"/proc/self/fd/{number}" for number in range(3)
    ]


def test_the_hosts_devices_keep_owner_and_mode(sublet: Sublet, tmp_path: Path) -> None:
    """The runtime gives the container's root whatever its standard streams are."""
    devices = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")
    before = {name: owner(Path("/dev") / name) for name in devices}
    (tmp_path / "file").write_text("x")
    health = ("--health-cmd", "true", "--health-interval", "1s")
    box = sublet.ok("run", "-d", *health, "--name", "box", BASE, "sleep", "60")
    steps: list[tuple[str, ...]] = [
        ("run", "--rm", BASE, "true"),
        ("run", "--rm", "-i", BASE, "true"),
        ("run", "-d", "-t", "--name", "terminal", BASE, "true"),
        ("run", "--rm", "--init", "--log-driver", "none", BASE, "chmod", "600", "/dev/stdin"),
        ("run", "--rm", "--cap-add", "ALL", BASE, "sh", "-c", "chown 0 /dev/null; chmod 0 /dev/*"),
        ("run", "--rm", "--device", "/dev/zero", BASE, "sh", "-c", "chown 0 /dev/zero"),
        ("exec", "box", "sh", "-c", "chown 0 /proc/self/fd/* /dev/std*"),
        ("exec", "-d", "box", "true"),
        ("cp", f"{tmp_path}/file", "box:/file"),
        ("cp", "box:/file", f"{tmp_path}/back"),
        ("restart", "-t", "0", "box"),
        ("snapshot", "box"),
        ("fork", "box", "--name", "child"),
        ("commit", "box", "committed"),
        ("rmi", "committed"),
    ]
    for step in steps:
        sublet(*step)
        assert {name: owner(Path("/dev") / name) for name in devices} == before, step
    eventually(lambda: sublet.json("inspect", box)["health"], "a check")
    assert before["null"] == (0, 0, 0o666)
    assert {name: owner(Path("/dev") / name) for name in devices} == before


def owner(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)
