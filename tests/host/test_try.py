"""`sublet try`: a directory, or the host itself, is as it was; what is wanted is copied out."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from clilab import assert_nothing_left, refused, seen
from conftest import BASE, SUBLET, Outcome, Sublet, eventually

WORK = """
set -e
echo changed > a; rm b; mv sub moved; chmod 755 run; ln -s a link
mkdir new; echo x > new/x; chown 7:8 new/x; cp /bin/true tool; chmod 4755 tool
rm -r replaced; mkdir replaced; echo y > replaced/y
"""
LIST = {
    *("C a", "D b", "A link", "A moved", "A moved/c", "A new", "A new/x", "C run", "D sub"),
    *("A tool", "D replaced/z", "A replaced/y"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that is tried, which is the working directory."""
    directory = tmp_path / "work"
    for name in ("a", "b", "sub/c", "run", "replaced/z"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"{name}\n")
        os.chmod(directory / name, 0o644)
    monkeypatch.chdir(directory)
    return directory


def listing(directory: Path) -> list[tuple[object, ...]]:
    """All that is in a directory, and since when."""
    found: list[tuple[object, ...]] = []
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_ctime_ns))
    return found


def lines(outcome: Outcome) -> set[str]:
    return {line for line in outcome.err.splitlines() if line[:2] in ("A ", "C ", "D ")}


def test_nothing_changes_here(sublet: Sublet, place: Path) -> None:
    before = listing(place)
    outcome = sublet("try", "--", "sh", "-c", f"pwd; id -u; cat sub/c; {WORK} exit 7")
    assert outcome.out.split() == [str(place), "0", "sub/c"]
    assert (outcome.code, lines(outcome)) == (7, LIST)
    assert listing(place) == before
    assert "Nothing was changed." in sublet("try", BASE, "--", "cat", "a").err
    opened = sublet("try", "--", "sh", "-c", "chmod 777 sub; rm sub/c")
    assert lines(opened) == {"C sub", "D sub/c"}
    assert sublet("try", input="echo a shell > s; exit 5\n").code == 5
    assert listing(place) == before
    assert sublet.json("ps", "-a", "--json") == []


def test_all_is_applied(sublet: Sublet, place: Path) -> None:
    sublet.ok("try", "--apply", "--", "sh", "-c", WORK)
    assert (place / "a").read_text() == "changed\n"
    assert (place / "moved/c").read_text() == "sub/c\n"
    assert os.readlink(place / "link") == "a"
    assert stat.S_IMODE((place / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((place / "tool").stat().st_mode) == 0o755
    assert ((place / "new/x").stat().st_uid, (place / "new/x").stat().st_gid) == (7, 8)
    assert (place / "a").stat().st_uid == 0
    assert sorted(path.name for path in place.iterdir()) == [
        *("a", "link", "moved", "new", "replaced", "run", "tool"),
    ]
    assert os.listdir(place / "replaced") == ["y"]
    assert "Nothing was changed." in sublet("try", "--", "true").err


def test_some_is_applied(sublet: Sublet, place: Path) -> None:
    choice = ("--apply", "new/x", "--apply", "sub", "--apply=b")
    outcome = sublet("try", *choice, "--json", BASE, "--", "sh", "-c", f"{WORK} echo said")
    said, _, answer = outcome.out.partition("\n")
    told = json.loads(answer)
    assert said == "said"
    assert set(told["applied"]) == {f"{place}/{name}" for name in ("b", "new", "new/x", "sub")}
    assert {"kind": "C", "path": f"{place}/a", "type": "file", "size": 8} in told["changes"]
    assert (told["exit_code"], told["kept"]) == (0, [])
    assert sorted(path.name for path in place.iterdir()) == ["a", "new", "replaced", "run"]
    assert (place / "a").read_text() == "a\n"
    idle = sublet("try", "--apply", "run", "--", "true")
    assert f"nothing was changed in {place}/run." in idle.err
    refused(sublet, "try", "--apply", "../x", "--", "true", says="is not in")


def test_what_changes_here_meanwhile_stays(sublet: Sublet, place: Path) -> None:
    script = "echo ready; read go; echo inside > a; rm -r sub; echo inside > run"
    for options, kept in (((), True), (("--force",), False)):
        (place / "sub").mkdir(exist_ok=True)
        argv = ("try", "--apply", *options, "--", "sh", "-c", script)
        process = sublet.spawn(*argv, stdin=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (place / "a").write_text("here\n")
        (place / "sub/c").write_text("here\n")
        _, err = process.communicate("go\n", timeout=60)
        assert (place / "a").read_text() == ("here\n" if kept else "inside\n")
        assert (place / "sub").exists() is kept
        assert (place / "run").read_text() == "inside\n"
        assert (f"{place}/a was changed here meanwhile" in err) is kept


def test_links_inside_lead_nowhere_here(sublet: Sublet, place: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("old\n")
    script = f"rm -r sub; ln -s {tmp_path}/outside sub; ln -s / root; mkfifo pipe; ln a a2"
    outcome = sublet("try", "--apply", "--", "sh", "-c", script)
    assert outcome.code == 0, outcome
    assert os.readlink(place / "sub") == f"{tmp_path}/outside"
    assert stat.S_ISFIFO((place / "pipe").stat().st_mode)
    # Now the directory itself has a link where the changes are in a directory.
    script = "rm sub; mkdir sub; echo evil > sub/precious; echo ready; read go"
    process = sublet.spawn(
        *("try", "--apply", "sub/precious", "--force", "--", "sh", "-c", script),
        stdin=subprocess.PIPE,
    )
    process.communicate("go\n", timeout=60)
    assert (tmp_path / "outside/precious").read_text() == "old\n"


HOSTILE = r"""
set -e
listen='IO::Socket::UNIX->new(Local => "sock", Listen => 1)'
perl -MIO::Socket::UNIX -e "$listen"; rm run
perl -MIO::Socket::UNIX -e "$listen" && mv sock run
perl -MIO::Socket::UNIX -e "$listen"
for name in 'new\nline' '\033[2Jred' 'bad\377utf' ' lead' '-rf'; do
    printf x > "./$(printf -- "$name")"
done
ln -s ../../../../etc up; mkdir -m 6777 open
cp /bin/true suid; chmod 6755 suid; ln suid same
rm -r sub; ln -s "$1" sub
"""


def test_hostile_changes(sublet: Sublet, place: Path, tmp_path: Path) -> None:
    """Names that mean something to a terminal or a shell, kinds that no copy may have."""
    outside = tmp_path / "outside"
    outside.mkdir()
    argv = ("sh", "-c", HOSTILE, "sh", str(outside))
    outcome = sublet("try", "--apply", "--json", "--", *argv)
    assert outcome.code == 0, outcome
    told = json.loads(outcome.out)
    assert {f"{place}/new\nline", f"{place}/bad\udcffutf"} <= set(told["applied"])
    assert not {f"{place}/sock", f"{place}/run"} & set(told["applied"])
    assert {r"A new\nline", r"A \x1b[2Jred", "A sock", "A  lead"} <= lines(outcome)
    assert "\x1b" not in outcome.err
    assert "left out: 2" in outcome.err
    names = {b"new\nline", b"\033[2Jred", b"bad\377utf", b" lead", b"-rf", b"up", b"open"}
    names |= {b"a", b"b", b"replaced", b"suid", b"same", b"sub", b"run"}
    assert set(os.listdir(os.fsencode(place))) == names
    assert (place / "run").read_text() == "run\n", "a socket takes no file's place"
    assert (os.readlink(place / "up"), os.readlink(place / "sub")) == (
        "../../../../etc",
        str(outside),
    )
    assert stat.S_IMODE((place / "open").stat().st_mode) == 0o777
    assert stat.S_IMODE((place / "suid").stat().st_mode) == 0o755
    assert (place / "suid").stat().st_ino == (place / "same").stat().st_ino
    assert os.listdir(outside) == []


def test_a_killed_client_leaves_nothing(sublet: Sublet, place: Path) -> None:
    before = listing(place)
    script = "echo x > a; echo ready >&2; sleep 1000"
    process = sublet.spawn("try", "--", "sh", "-c", script, stdin=subprocess.PIPE)
    seen(process, "ready")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    eventually(lambda: sublet.json("ps", "-a", "--json") == [], "it goes with its client")
    assert listing(place) == before
    assert_nothing_left(sublet)


def test_it_may_be_kept(sublet: Sublet, place: Path) -> None:
    sublet.ok("try", "--keep", "box", "--", "sh", "-c", "echo x > a")
    assert sublet.json("inspect", "box")["state"] == "stopped"
    assert sublet.ok("diff", "--mount", str(place), "box") == "C /a"
    sublet.ok("cp", f"box:{place}/a", str(place / "copy"))
    assert (place / "copy").read_text() == "x\n"


def test_on_a_terminal_it_asks(sublet: Sublet, place: Path) -> None:
    for answers, expected in ((b"n\n", "a"), (b"c\ny\nn\n", "inside"), (b"y\n", "inside")):
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(place)
            os.execve(SUBLET, [SUBLET, "try"], sublet.env)
        # The terminal keeps what is typed ahead for who reads next.
        answered, data = False, b""
        os.write(master, b"test -t 0 && echo inside > a; echo x > b; exit\n")
        while True:
            try:
                data += os.read(master, 65536)
            except OSError:
                break
            if b"[y/N/choose]" in data and not answered:
                os.write(master, answers)
                answered = True
        os.close(master)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, data
        assert (place / "a").read_text() == f"{expected}\n", data
        assert ((place / "b").read_text() == "x\n") is (answers == b"y\n")


def package(directory: Path) -> Path:
    """A Debian package with a program, as small as one can be."""
    (directory / "deb/DEBIAN").mkdir(parents=True)
    (directory / "deb/usr/bin").mkdir(parents=True)
    (directory / "deb/usr/bin/sublet-tried").write_text("#!/bin/sh\necho tried\n")
    os.chmod(directory / "deb/usr/bin/sublet-tried", 0o755)
    (directory / "deb/DEBIAN/control").write_text(
        "Package: sublet-tried\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\n"
        "Description: is tried\n"
    )
    argv = ["dpkg-deb", "--build", "--root-owner-group", directory / "deb", directory / "tried.deb"]
    subprocess.run(argv, check=True, capture_output=True)
    return directory / "tried.deb"


def test_an_installation_on_the_host(sublet: Sublet, place: Path, tmp_path: Path) -> None:
    file, target = package(tmp_path), tmp_path / "target"
    target.mkdir()
    script = f"dpkg -i {file} >&2 && sublet-tried; echo made > {target}/made; ls -A /run"
    script += f"; ls -A {sublet.root}; stat -c %U /etc/shadow"
    argv = ("try", "--host", "--network", "none", "--apply", f"{target}/made", "--", "sh", "-c")
    outcome = sublet(*argv, script)
    assert (outcome.code, outcome.out.split()) == (0, ["tried", "root"]), outcome
    assert "A /usr/bin/sublet-tried" in lines(outcome)
    assert "lists of packages" in outcome.err
    assert not [line for line in lines(outcome) if "/var/lib/dpkg" in line]
    assert (target / "made").read_text() == "made\n"
    assert not Path("/usr/bin/sublet-tried").exists()
    status = subprocess.run(["dpkg", "-s", "sublet-tried"], capture_output=True, check=False)
    assert status.returncode == 1
    refused(sublet, "try", "--host", "--apply", "/", "--", "true", says="is refused")
    refused(sublet, "try", "--host", BASE, "--", "true", says="instead of an image")


def test_what_is_wanted_of_the_host_is_no_cache(sublet: Sublet, tmp_path: Path) -> None:
    """Nothing of a user's is told of as a cache; what is named is applied, wherever it lies."""
    result, cached = tmp_path / "result", Path("/var/cache/sublet-tried")
    script = f"echo x > {result}; mkdir {cached}; echo y > {cached}/file; echo z > /tmp/sublet-z"
    argv = ("try", "--host", "--network", "none")
    outcome = sublet(*argv, "--", "sh", "-c", script)
    assert {f"A {result}", "A /tmp/sublet-z"} <= lines(outcome)
    assert f"A {cached}" not in lines(outcome)
    assert "caches" in outcome.err
    assert not result.exists()
    try:
        choice = ("--apply", str(cached), "--apply", str(result))
        outcome = sublet(*argv, *choice, "--", "sh", "-c", script)
        assert {f"A {result}", f"A {cached}/file"} <= lines(outcome)
        assert ((cached / "file").read_text(), result.read_text()) == ("y\n", "x\n")
        assert not Path("/tmp/sublet-z").exists()
    finally:
        shutil.rmtree(cached, ignore_errors=True)


def test_the_hosts_files_are_nobodys_to_pack(sublet: Sublet, place: Path) -> None:
    sublet.ok("try", "--host", "--keep", "box", "--", "touch", "/usr/local/bin/sublet-tried")
    assert not Path("/usr/local/bin/sublet-tried").exists()
    assert "A /usr/local/bin/sublet-tried" in sublet.ok("diff", "box")
    for verb in (("commit", "box", "copy"), ("export", "box", "-o", str(place / "x.tar"))):
        outcome = sublet(*verb)
        assert (outcome.code, "nobody's to pack" in outcome.err) == (1, True), outcome
    sublet.ok("start", "box")
    assert sublet.ok("wait", "box") == "0"


@pytest.mark.slow
def test_apt_on_the_host(sublet: Sublet, place: Path) -> None:
    script = "apt-get update >&2 && apt-get install -y hello >&2 && hello"
    outcome = sublet("try", "--host", "--", "sh", "-c", script, timeout=600)
    assert (outcome.code, outcome.out) == (0, "Hello, world!\n"), outcome
    assert "A /usr/bin/hello" in lines(outcome)
    assert not Path("/usr/bin/hello").exists()
