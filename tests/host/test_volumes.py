"""Volumes, limited disks, memory: what instances may write, and where it stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually

from sublet.drivers import disk

SMALL = 32 << 20


@pytest.fixture
def volumes(sublet: Sublet) -> Sublet:
    """The command line; afterwards no volume is left."""
    yield sublet
    names = sublet.ok("ps", "-aq").split()
    if names:
        sublet.ok("rm", "-f", "-v", *names)
    left = sublet.ok("volume", "ls", "-q").split()
    if left:
        sublet.ok("volume", "rm", *left)
    assert list((sublet.root / "volumes").iterdir()) == []


def test_a_named_volume_outlives_its_instances(volumes: Sublet) -> None:
    assert volumes.ok("volume", "create", "data", "-l", "a=b") == "data"
    script = "echo kept > /data/x; chown 5:6 /data/x; ls -lan /data/x"
    volumes.ok("run", "--rm", "-v", "data:/data", BASE, "sh", "-c", script)
    listing = "stat -c %u:%g /data/x; cat /data/x; touch /data/y"
    args = ("run", "-d", "--name", "box", "-v", "data:/data:ro", BASE, "sleep", "60")
    volumes.ok(*args)
    outcome = volumes("exec", "box", "sh", "-c", listing)
    assert outcome.out.split() == ["5:6", "kept"]  # though its ids are others on the host
    assert "Read-only" in outcome.err
    inspected = volumes.json("volume", "inspect", "data")
    assert (inspected["labels"], inspected["instances"]) == ({"a": "b"}, ["box"])
    assert inspected["size"] >= 4096
    refused(volumes, "volume", "rm", "data", code=1, says="in use by box")
    refused(volumes, "volume", "create", "data", code=1, says="already")
    volumes.ok("rm", "-f", "box")
    assert volumes.ok("volume", "rm", "data") == "data"
    refused(volumes, "volume", "inspect", "data", code=1, says="no volume")
    assert volumes("volume", "rm", "-f", "data").code == 0


def test_a_new_volume_gets_what_the_image_has(volumes: Sublet) -> None:
    run = ("run", "--rm", "-v")
    first = volumes.ok(*run, "conf:/etc/apt", BASE, "ls", "/etc/apt")
    assert "sources.list.d" in first
    assert volumes.ok(*run, "conf:/mnt", BASE, "ls", "/mnt") == first
    assert volumes.ok(*run, "bare:/etc/apt:nocopy", BASE, "ls", "/etc/apt") == ""


def test_volumes_without_a_name(volumes: Sublet) -> None:
    volumes.ok("run", "--rm", "-v", "/data", BASE, "touch", "/data/x")
    assert volumes.ok("volume", "ls", "-q") == ""  # --rm took it along
    for name in ("one", "two"):
        volumes.ok("run", "-d", "--name", name, "-v", "/data", BASE, "sleep", "60")
    volumes.ok("rm", "-f", "-v", "one")
    volumes.ok("volume", "create", "named")
    (kept,) = [row for row in volumes.json("volume", "ls", "--json") if row["anonymous"]]
    assert kept["instances"] == ["two"]
    volumes.ok("rm", "-f", "two")
    outcome = volumes("volume", "prune", "--force")
    assert kept["name"] in outcome.out
    assert "1 volume" in outcome.err
    assert volumes.ok("volume", "ls", "-q") == "named"
    volumes.ok("volume", "prune", "--force", "--all")
    assert volumes.ok("volume", "ls", "-q") == ""


def test_volumes_of_the_image(volumes: Sublet, tmp_path: Path, base_file: Path) -> None:
    place = tmp_path / "context"
    place.mkdir()
    text = f"FROM {BASE}\nRUN mkdir /data && echo seed > /data/seed\nVOLUME /data /proc/x\n"
    (place / "Containerfile").write_text(text)
    volumes.ok("build", str(place), "-t", "withvolume", timeout=300)
    try:
        volumes.ok("run", "-d", "--name", "box", "withvolume", "sleep", "60")
        assert volumes.ok("exec", "box", "cat", "/data/seed") == "seed"
        assert [row["anonymous"] for row in volumes.json("volume", "ls", "--json")] == [True]
        volumes.ok("rm", "-f", "-v", "box")
    finally:
        volumes.ok("rmi", "withvolume")


def test_links_lead_nowhere(volumes: Sublet, tmp_path: Path) -> None:
    """What a tenant puts into a volume leads nowhere, nor does what somebody calls one."""
    script = "ln -s /etc /data/etc; rm -rf /srv; ln -s /etc /srv; ls -ld /data/etc"
    volumes.ok(
        "run", "-d", "--name", "box", "-v", "v:/data", BASE, "sh", "-c", f"{script}; sleep 99"
    )
    place = Path(volumes.json("volume", "inspect", "v")["mountpoint"])
    eventually(lambda: os.path.lexists(place / "etc"), "the link is made")
    assert os.readlink(place / "etc") == "/etc"
    for name in ("../x", "..", "/x", "a/b", ".hidden", "x" * 64, "a:b"):
        assert volumes("volume", "create", name).code == 1
    refused(volumes, "run", "--rm", "-v", "../x:/y", BASE, "true")


def attached(sublet: Sublet) -> list[Path]:
    """The disks of this daemon that a loop device has."""
    files = disk.loops(Path("/")).values()
    return [file for file in files if file.name == "disk.img" and str(sublet.home) in str(file)]


def test_a_limited_volume(volumes: Sublet) -> None:
    volumes.ok("volume", "create", "small", "--size", str(SMALL))
    script = "head -c 64m /dev/zero > /data/x; stat -c %s /data/x; df -B1 --output=size /data"
    args = ("-v", "small:/data", BASE, "sh", "-c")
    outcome = volumes("run", "--rm", *args, script)
    written, _, size = outcome.out.split()
    assert "No space left" in outcome.err
    assert 0 < int(written) < int(size) <= SMALL
    assert volumes.ok("run", "--rm", *args, "stat -c %s /data/x") == written
    eventually(lambda: not attached(volumes), "its loop device is free")


def test_a_limited_disk(sublet: Sublet) -> None:
    before = os.statvfs(sublet.root).f_bavail
    script = "head -c 200m /dev/zero > /x; stat -c %s /x; rm /x; echo still > /y; cat /y"
    outcome = sublet("run", "--rm", "--disk", "64m", BASE, "sh", "-c", script)
    written, said = outcome.out.split()
    assert (outcome.code, said) == (0, "still")
    assert "No space left" in outcome.err
    assert 40 << 20 < int(written) < 64 << 20
    assert (before - os.statvfs(sublet.root).f_bavail) * 4096 < 1 << 30
    script = "i=0; while touch /f$i; do i=$((i+1)); done 2>/dev/null; echo $i"
    assert 0 < int(sublet.ok("run", "--rm", "--disk", "16m", BASE, "sh", "-c", script)) < 20000


def test_a_limited_disk_is_kept(sublet: Sublet) -> None:
    """Over a stop and a start, and when the daemon is another one."""
    sublet.ok("run", "-d", "--name", "box", "--disk", "64m", BASE, "sleep", "600")
    sublet.ok("exec", "box", "sh", "-c", "echo kept > /x")
    sublet.kill_daemon()
    assert sublet.ok("exec", "box", "cat", "/x") == "kept"
    sublet.ok("stop", "-t", "0", "box")
    eventually(lambda: not attached(sublet), "its loop device is free")
    sublet.ok("start", "box")
    assert sublet.ok("exec", "box", "cat", "/x") == "kept"


def test_a_disk_grows(sublet: Sublet) -> None:
    def size() -> int:
        return int(sublet.ok("exec", "box", "df", "-B1", "--output=size", "/").split()[1])

    sublet.ok("run", "-d", "--name", "box", "--disk", "32m", BASE, "sleep", "600")
    sublet.ok("exec", "box", "sh", "-c", "echo kept > /x")
    if sublet("update", "--disk", "256m", "box").code:  # needs CAP_SYS_RESOURCE
        assert 0 < size() < 32 << 20
        sublet.ok("stop", "-t", "0", "box")
        sublet.ok("update", "--disk", "256m", "box")
        sublet.ok("start", "box")
    assert 200 << 20 < size() < 256 << 20
    assert sublet.ok("exec", "box", "cat", "/x") == "kept"
    refused(sublet, "update", "--disk", "64m", "box", code=1, says="cannot become smaller")
    sublet.ok("run", "-d", "--name", "free", BASE, "sleep", "600")
    refused(sublet, "update", "--disk", "64m", "free", code=1, says="made without --disk")


def test_memory_as_a_file_system(sublet: Sublet) -> None:
    script = "stat -f -c %T /t; stat -c '%a %u' /t; head -c 2m /dev/zero > /t/x; stat -c %s /t/x"
    outcome = sublet("run", "--rm", "--tmpfs", "/t:size=1m,mode=750", BASE, "sh", "-c", script)
    assert outcome.out.split() == ["tmpfs", "750", "0", str(1 << 20)]
    assert "No space left" in outcome.err
    args = ("--memory", "64m", "--mount", "type=tmpfs,target=/t,tmpfs-size=1g", BASE)
    fill = "head -c 200m /dev/zero > /t/x; echo $?"
    outcome = sublet("run", "--rm", *args, "sh", "-c", fill)
    assert "137" in (outcome.out.strip(), str(outcome.code))  # it is the instance's memory


def test_a_root_that_cannot_be_written(volumes: Sublet) -> None:
    flags = ("--read-only", "-v", "data:/data", "--tmpfs", "/t")
    script = "touch /data/x /t/x && echo both; touch /x"
    outcome = volumes("run", "--rm", *flags, BASE, "sh", "-c", script)
    assert outcome.out == "both\n"
    assert "Read-only" in outcome.err
