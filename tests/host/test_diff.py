"""`diff`: what is seen of an instance's writable layer, and what hostile instances make of it."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

import pytest
from conftest import BASE, SUBLET, Sublet

CHANGES = """
rm -rf /etc/apt; mkdir /etc/apt; touch /etc/apt/new
echo x >> /etc/passwd; rm /etc/shadow; chmod 700 /opt
mkdir -p /srv/a/b; rm -r /usr/share/doc; ln -s / /srv/link
rm -r /media; touch /media
touch /home/gone; rm /home/gone
"""


def lines(sublet: Sublet) -> list[str]:
    return sublet("diff", "box").out.splitlines()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_what_has_changed(sublet: Sublet, state: str) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "1000")
    assert lines(sublet) == []
    apt = sublet.ok("exec", "box", "ls", "/etc/apt").split()
    sublet.ok("exec", "box", "sh", "-c", CHANGES)
    if state == "stopped":
        sublet.ok("stop", "-t", "0", "box")
    expected = [
        *("C /etc", "C /etc/apt", "A /etc/apt/new", *(f"D /etc/apt/{name}" for name in apt)),
        *("C /etc/passwd", "D /etc/shadow", "C /home", "C /media", "C /opt", "C /srv"),
        *("A /srv/a", "A /srv/a/b", "A /srv/link", "C /usr", "C /usr/share", "D /usr/share/doc"),
    ]
    assert sorted(lines(sublet), key=lambda line: line[2:]) == sorted(
        expected, key=lambda line: line[2:]
    )
    rows = sublet.json("diff", "box", "--json")
    assert [f"{row['kind']} {row['path']}" for row in rows] == lines(sublet)
    assert sublet("diff", "gone").code == 1


def test_mounts_are_no_changes(sublet: Sublet, tmp_path: Path) -> None:
    volume = f"{tmp_path}:/data/deep/er"
    sublet.ok("run", "-d", "--name", "box", "-v", volume, BASE, "touch", "/data/deep/er/file")
    sublet.ok("wait", "box")
    assert (tmp_path / "file").exists()
    assert lines(sublet) == []
    (tmp_path / "x").touch()
    sublet.ok("cp", str(tmp_path / "x"), "box:/data/deep/x")
    assert lines(sublet) == ["A /data", "A /data/deep", "A /data/deep/x"]


def test_hostile_names_and_depths(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "1000")
    script = 'for (1..3000) { mkdir "d"; chdir "d" } open F, ">", "end";'
    script += 'mkdir "/many"; for (1..20000) { open F, ">", "/many/$_" }'
    script += 'open F, ">", "/srv/x\\nA \\e[31mx"; symlink "/", "/srv/root"'
    sublet.ok("exec", "box", "perl", "-e", script)
    rows = sublet.json("diff", "box", "--json")
    paths = {row["path"] for row in rows}
    assert f"{'/d' * 3000}/end" in paths
    assert "/srv/x\nA \033[31mx" in paths
    assert len([path for path in paths if path.startswith("/many/")]) == 20000
    assert not [path for path in paths if path.startswith("/srv/root/")]
    shown = on_terminal(sublet, "diff", "box")
    assert "A /srv/x\\nA \\x1b[31mx" in shown
    assert "\033[31m" not in shown


def on_terminal(sublet: Sublet, *argv: str) -> str:
    """What the command shows on a terminal."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(SUBLET, [SUBLET, *argv], sublet.env)
    data = b""
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:
            break
        data += piece
    os.close(master)
    os.waitpid(pid, 0)
    return data.decode()


def test_json_of_nothing(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "1000")
    assert json.loads(sublet.ok("diff", "box", "--json")) == []
