"""A disk image as a VM: what the engine does with it, told by a system that boots in seconds.

`test_full_systems.py` does the same with a real one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import refused
from conftest import Sublet, eventually
from imagelab import call

MIB = 1 << 20
SEED = "/var/lib/cloud/seed/nocloud"
PROGRAMS = ("sh", "cat", "ls", "stat", "df", "sync", "hostname", "mount", "ip", "poweroff")
DATA = "#!/bin/sh\necho a secret of the tenant\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT disk of 96 MiB; its second partition is the root, with busybox for a system."""
    place = tmp_path_factory.mktemp("tiny")
    tree, root, disk = place / "tree", place / "root", place / "disk"
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in PROGRAMS:
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "sbin/init").symlink_to("../bin/busybox")
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc/inittab").write_text("::sysinit:/bin/sh -c 'echo booted >>/root/boots'\n")
    for file, size in ((root, 48 * MIB), (disk, 96 * MIB)):
        with file.open("wb") as made:
            made.truncate(size)
    call("mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", tree, root)
    table = f"label: gpt\nstart=2048, size=2048\nstart=4096, size={48 * MIB // 512}\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True, timeout=60)
    call("dd", f"if={root}", f"of={disk}", "bs=1M", "seek=2", "conv=notrunc,sparse", "status=none")
    return disk


@pytest.fixture
def box(sublet: Sublet, tiny: Path, tmp_path: Path) -> Iterator[str]:
    """A VM of the disk, with user data."""
    (tmp_path / "user-data").write_text(DATA)
    sublet.ok("import", str(tiny), "-t", "tiny")
    seed = ["--hostname", "tiny.example", "--user-data", str(tmp_path / "user-data")]
    sublet.ok("run", "-d", "--vm", "--name", "box", *seed, "-m", "128m", "tiny")
    booted(sublet, "box", 1)
    yield "box"
    sublet.ok("rm", "-f", *sublet.ok("ps", "-aq").split())
    sublet.ok("rmi", "tiny")


def shell(sublet: Sublet, name: str, command: str) -> str:
    return sublet.ok("exec", name, "sh", "-c", command)


def booted(sublet: Sublet, name: str, times: int) -> None:
    eventually(
        lambda: sublet("exec", name, "cat", "/root/boots").out.count("booted") == times,
        f"{name} has booted",
        120,
    )


def capacity(sublet: Sublet, name: str) -> int:
    """The MiB of the disk that its root is on; its partitions are its own system's to stretch."""
    mounts = shell(sublet, name, "cat /proc/mounts").splitlines()
    device = next(line.split()[0] for line in mounts if line.split()[1] == "/")
    return int(shell(sublet, name, f"cat /sys/block/{device[5:8]}/size")) * 512 // MIB


def test_its_own_init_finds_its_root_and_its_seed(sublet: Sublet, box: str) -> None:
    row = sublet.json("inspect", box)
    root = next(line for line in shell(sublet, box, "mount").splitlines() if " on / " in line)
    assert root.startswith("/dev/vd")
    assert " type ext4 (rw" in root
    assert shell(sublet, box, "hostname") == "tiny.example"
    meta = json.loads(shell(sublet, box, f"cat {SEED}/meta-data"))
    assert meta["instance-id"] == f"i-{row['id']}"
    network = json.loads(shell(sublet, box, f"cat {SEED}/network-config"))
    assert network["ethernets"]["eth0"]["addresses"][0].startswith(f"{row['address']}/")
    assert shell(sublet, box, f"cat {SEED}/user-data") == DATA.strip()
    assert shell(sublet, box, f"stat -c %a {SEED}/user-data") == "600"
    assert "secret of the tenant" not in json.dumps(row)
    assert b"secret of the tenant" not in (sublet.root / "sublet.db").read_bytes()


def test_a_stop_powers_it_off_and_its_disk_has_grown_after_it(sublet: Sublet, box: str) -> None:
    assert capacity(sublet, box) == 96
    assert "when it starts again" in sublet("update", "--disk", "300m", box).err
    assert capacity(sublet, box) == 96
    sublet.ok("stop", "-t", "60", box)
    assert sublet.json("inspect", box)["exit_code"] == 0
    refused(sublet, "update", "--disk", "200m", box, code=1)
    sublet.ok("start", box)
    booted(sublet, box, 2)
    assert capacity(sublet, box) == 300
    sublet.ok("restart", "-t", "60", box)  # goes on from the template, whose disk was not this one
    booted(sublet, box, 3)


def test_snapshots_and_forks_are_of_the_overlay_alone(sublet: Sublet, box: str) -> None:
    shell(sublet, box, "echo first >/root/state")
    snapshot = sublet.ok("snapshot", box)
    shell(sublet, box, "echo second >/root/state; sync")
    fork = sublet.ok("fork", box, "--name", "twin")
    assert shell(sublet, "twin", "cat /root/state /root/boots") == "second\nbooted"
    meta = json.loads(shell(sublet, "twin", f"cat {SEED}/meta-data"))
    assert meta["instance-id"] == f"i-{fork}"
    shell(sublet, "twin", "echo third >/root/state")
    sublet.ok("rollback", box, snapshot)
    eventually(lambda: sublet("exec", box, "cat", "/root/state").out == "first\n", "it is back", 60)
    assert shell(sublet, "twin", "cat /root/state") == "third"


def test_it_sleeps_and_wakes(sublet: Sublet, box: str) -> None:
    shell(sublet, box, "echo here >/tmp/state; head -c 1000000 /dev/urandom >/root/much || :")
    sublet.ok("hibernate", box)
    sublet.ok("wake", box)
    assert shell(sublet, box, "cat /tmp/state /root/boots") == "here\nbooted"


def test_the_image_is_shared_and_not_written_to(sublet: Sublet, box: str) -> None:
    digest = sublet.json("inspect", box)["digest"]
    file = Path(sublet.json("image", "inspect", "tiny")["file"])
    before = file.stat().st_mtime_ns
    sublet.ok("run", "-d", "--vm", "--name", "other", "-m", "128m", "tiny")
    booted(sublet, "other", 1)
    shell(sublet, "other", "echo mine >/root/mine; sync")
    assert sublet("exec", box, "cat", "/root/mine").code == 1
    assert file.stat().st_mtime_ns == before
    assert f"sha256:{call('sha256sum', file).split()[0]}" == digest
