"""`commit`: an instance's files become an image that runs, packs, and says what it is made of."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually

from sublet.image import sif

SQUASHFS = "io.sublet.sha256.rootfs.squashfs"
FILES = """
cd /srv; echo data > file; chown 1000:1001 file; chmod 4750 file; ln file hard; ln -s / link
truncate -s 40M sparse; mkfifo fifo; rm /etc/shadow; echo mine > /data/volume
"""
SEEN = "stat -c %n:%A:%u:%g:%h:%s /srv/file /srv/link /srv/sparse /srv/fifo; cat /srv/hard"


def squashfs(sublet: Sublet, image: str, file: Path) -> str:
    """The SHA-256 of the image's file system."""
    sublet.ok("pack", image, "-o", str(file))
    with file.open("rb") as source:
        return sif.read(source).config.labels[SQUASHFS]


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_what_is_in_it(sublet: Sublet, tmp_path: Path, state: str) -> None:
    (tmp_path / "vol").mkdir()
    volume = f"{tmp_path}/vol:/data"
    sublet.ok("run", "-d", "--name", "box", "-v", volume, BASE, "sleep", "1000")
    sublet.ok("exec", "box", "sh", "-c", FILES)
    script = 'use Socket; socket S, AF_UNIX, SOCK_STREAM, 0; bind S, sockaddr_un("/srv/socket")'
    sublet.ok("exec", "box", "perl", "-e", script)
    seen = sublet.ok("exec", "box", "sh", "-c", SEEN)
    (tmp_path / "capable").write_text("x")
    os.setxattr(tmp_path / "capable", "user.note", b"kept")
    os.setxattr(
        tmp_path / "capable", "security.capability", bytes.fromhex("0100000200040000" + 24 * "0")
    )
    sublet.ok("cp", str(tmp_path / "capable"), "box:/srv/capable")
    if state == "stopped":
        sublet.ok("stop", "-t", "0", "box")
    digest = sublet.ok("commit", "box", "made:one")
    assert sublet.ok("run", "--rm", "made:one", "sh", "-c", SEEN) == seen
    found = sublet.ok(
        "run", "--rm", "made:one", "sh", "-c", "ls -A /srv /data; ls /etc/shadow || :"
    )
    assert found.split() == ["/data:", "/srv:", "capable", "fifo", "file", "hard", "link", "sparse"]
    attributes = "getcap /srv/capable 2>/dev/null || perl -e '"
    attributes += '$s = "/srv/capable"; for ("user.note", "security.capability") '
    attributes += "{ $n = $_; $b = 0 x 64; $r = syscall 191, $s, $n, $b, 64; print $r, chr 10 }'"
    assert sublet.ok("run", "--rm", "made:one", "sh", "-c", attributes).split()[-2:] == ["4", "20"]
    if state == "stopped":
        sublet.ok("commit", "box", "made:two")
        one, two = (squashfs(sublet, f"made:{n}", tmp_path / n) for n in ("one", "two"))
        assert one == two
        sublet.ok("rmi", "made:two")
    else:
        assert sublet.json("inspect", "box")["state"] == "running"
        assert sublet.ok("exec", "box", "echo", "awake") == "awake"
    assert sublet.json("image", "inspect", digest)["name"] == "made:one"
    sublet.ok("rmi", "made:one")


def test_its_configuration(sublet: Sublet, tmp_path: Path) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "1000")
    file = tmp_path / "image.sif"
    changes = ('CMD ["-c", "echo $A from $PWD"]', 'ENV A="two words"', "WORKDIR /srv")
    flags = [flag for change in changes for flag in ("-c", change)]
    argv = [*flags, "-c", 'ENTRYPOINT ["/bin/sh"]', *flags[:2], "-m", "why", "-a", "who"]
    digest = sublet.ok("commit", *argv, "--pause=false", "-o", str(file), "box")
    assert digest not in [row["digest"] for row in sublet.json("images", "--json")]
    assert sublet.ok("run", "--rm", str(file)) == "two words from /srv"
    step = sublet.json("image", "inspect", digest)["history"][-1]
    assert (step["comment"], step["author"]) == ("why", "who")
    for wrong in (["-c", "FROM x", "box"], ["box", "Not:A:Name"], ["box", "-o", "/nowhere/x"]):
        outcome = sublet("commit", *wrong)
        assert (outcome.code, outcome.out) == (1, "")
    sublet.ok("rmi", digest)


@pytest.mark.parametrize("pause", ["true", "false"])
def test_removal_does_not_wait_for_it(sublet: Sublet, pause: str) -> None:
    sublet.ok(
        "run", "-d", "--name", "box", BASE, "sh", "-c", "head -c 1G /dev/urandom > /big; sleep 1000"
    )
    eventually(lambda: sublet("exec", "box", "test", "-s", "/big").code == 0, "it writes")
    with sublet.spawn("commit", f"--pause={pause}", "box", "made:never") as process:
        assert process.stderr is not None
        assert "Packing" in process.stderr.readline()
        sublet.ok("rm", "-f", "box", timeout=30)
        assert process.wait(60) != 0
        assert "cut off" in process.stderr.read()
    assert sublet("image", "inspect", "made:never").code != 0


def test_a_cancelled_commit_lets_it_go_on(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "1000")
    with sublet.spawn("commit", "box", "made:never") as process:
        assert process.stderr is not None
        assert "Packing" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    sublet("rmi", "made:never")
    assert sublet.ok("exec", "box", "echo", "awake", timeout=60) == "awake"
    assert json.loads(sublet.ok("inspect", "box"))["state"] == "running"
