"""What `try` tells, and which of the host's file systems it shows."""

from __future__ import annotations

from typing import Any

import pytest

from sublet.domain.changes import is_chosen
from sublet.domain.errors import InvalidArgument
from sublet.domain.trying import SHOWN, host_mounts, is_noise, lines, meant, told


def row(text: str, kind: str = "file", size: int = 1, **more: str) -> dict[str, Any]:
    change, path = text.split(" ")
    return {"kind": change, "path": path, "type": kind, "size": size, **more}


def texts(rows: list[dict[str, Any]], **options: bool) -> list[str]:
    return [str(line) for line in lines(told(rows), **options)]


def test_directories_on_the_way_are_not_told() -> None:
    rows = [
        row("C /a", "directory"),
        row("C /a/b"),
        row("C /c", "directory"),
        row("C /d", "directory", was="file"),
        row("A /d/e"),
        row("C /m", "directory", itself="true"),
        row("D /m/f"),
    ]
    assert texts(rows) == ["C /a/b", "C /c", "C /d", "A /d/e", "C /m", "D /m/f"]


def test_of_many_changes_new_directories_are_told_as_one() -> None:
    many = [row(f"A /new/{number}") for number in range(SHOWN)]
    rows = [row("C /a"), row("A /new", "directory", 0), *many, row("A /newer")]
    assert texts(rows) == ["C /a", f"A /new/ ({SHOWN + 1} entries, {SHOWN} B)", "A /newer"]
    assert len(texts(rows, everything=True)) == SHOWN + 3


def test_what_is_chosen() -> None:
    rows = [
        row("A /a", "directory"),
        row("A /a/b"),
        row("A /a/bc"),
        row("C /c", "directory"),
        row("C /c/d"),
    ]

    def paths(*wanted: str) -> list[str]:
        return [found["path"] for found in rows if is_chosen(found, wanted)]

    assert paths() == paths("/") == [found["path"] for found in rows]
    assert paths("/a/b") == ["/a", "/a/b"]
    assert paths("/c/d") == ["/c/d"]
    assert paths("/c") == ["/c", "/c/d"]
    assert paths("/a/bcd") == ["/a"]
    assert paths("/x") == []


def test_which_paths_are_meant() -> None:
    assert meant(".", "/home/me", "/home/me") == "/"
    assert meant("a/./b/", "/home/me", "/home/me") == "/a/b"
    assert meant("/home/me/a", "/home/me", "/home/me") == "/a"
    assert meant("../x", "/home/me", "/") == "/home/x"
    assert meant("/", "/home/me", "/") == "/"
    for text in ("..", "../me2", "/etc/passwd", "a/../../x"):
        with pytest.raises(InvalidArgument):
            meant(text, "/home/me", "/home/me")


def test_what_is_noise() -> None:
    assert is_noise("/var/cache/apt/pkgcache.bin")
    assert is_noise("/etc/resolv.conf")
    assert is_noise("/tmp")
    assert not is_noise("/tmp/result")
    assert not is_noise("/var/tmp/result")
    assert not is_noise("/tmpfiles")
    assert not is_noise("/etc/passwd")


def test_what_is_mounted_on_a_host() -> None:
    text = r"""
22 27 0:21 / /proc rw shared:2 - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 254:1 / /home rw,relatime shared:1 - ext4 /dev/vdb rw
29 27 254:2 / /boot/efi rw,relatime - vfat /dev/vda1 rw
30 27 0:40 /@srv /srv rw - btrfs /dev/vdc rw,subvol=/@srv
31 27 254:1 /me /mnt/me rw - ext4 /dev/vdb rw
32 27 0:50 / /net rw - nfs4 server:/x rw
33 27 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
34 27 0:51 / /run rw - tmpfs tmpfs rw
35 34 7:1 / /run/sublet/mnt/pool rw - xfs /dev/loop1 rw
39 27 7:2 / /tmp/x/mnt/pool rw - xfs /dev/loop2 rw
36 27 254:3 / /with\040space rw - xfs /dev/vdd rw
37 27 0:60 / /mnt/ssh rw - fuse.sshfs me@x rw
40 27 0:62 / /tmp rw - tmpfs tmpfs rw
41 27 0:63 / /var/lib/x/shm rw - tmpfs shm rw
38 27 0:61 net:[1] /var/lib/x/net rw - nsfs nsfs rw
""".strip()
    shown, hidden = host_mounts(text)
    assert shown == ["/home", "/srv", "/with space"]
    assert hidden == [
        *("/boot/efi (vfat)", "/mnt/me (ext4)", "/mnt/ssh (fuse.sshfs)", "/net (nfs4)"),
        "/tmp (tmpfs)",
    ]
