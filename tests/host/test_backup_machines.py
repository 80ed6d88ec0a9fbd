"""Backups of VMs: their disks without the holes; and containers that come back as VMs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clilab import size_of
from conftest import Sublet
from vmhost import IMAGE, LOOP, SMALL

OWNERS = "stat -c '%n %u %g %a' /root/x /data/mine /link 2>/dev/null; cat /root/x /vol/v; ls /data"
FILL = (
    "echo files > /root/x; chmod 4711 /root/x; echo mine > /data/mine; chown 2:3 /data/mine; "
    "rm /data/seed; ln -s /root/x /link; rm -r /data/x 2>/dev/null; echo volume > /vol/v; sync"
)


@pytest.fixture
def host(vm: Sublet) -> Iterator[Sublet]:
    yield vm
    ids = vm.ok("backups", "-q").split()
    if ids:
        vm.ok("backup", "rm", *ids)


def test_a_vm_comes_back(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "disk", *SMALL, "-v", "/vol", IMAGE, *LOOP)
    host.ok("exec", "disk", "sh", "-c", FILL)
    before = host.ok("exec", "disk", "sh", "-c", OWNERS)
    assert "files\nvolume\nmine" in before
    kept = host.ok("backup", "disk")
    (row,) = host.json("backups", "--json")
    assert (row["complete"], row["size"] < 64 << 20) == (True, True)
    assert size_of(host.root / "backups") < 32 << 20, "16 GiB of holes were kept"
    refused = host("backup", "disk", "--path", "/root")
    assert refused.code == 1
    assert "as a whole" in refused.err
    host.ok("exec", "disk", "sh", "-c", "echo later > /root/x; sync")
    host.ok("rm", "-f", "-v", "disk")
    host.ok("restore", kept)
    assert host.json("inspect", "disk")["state"] == "running"
    assert host.ok("exec", "disk", "sh", "-c", OWNERS) == before


def test_a_container_comes_back_as_a_vm(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "was", "-m", "128m", "-v", "/vol", IMAGE, *LOOP)
    host.ok("exec", "was", "sh", "-c", FILL)
    before = host.ok("exec", "was", "sh", "-c", OWNERS)
    kept = host.ok("backup", "was")
    host.ok("restore", kept, "--as", "now", "--vm")
    made = host.json("inspect", "now")
    assert (made["isolation"], made["state"]) == ("vm", "running")
    assert host.ok("exec", "now", "sh", "-c", OWNERS) == before
    assert host.ok("exec", "was", "uname", "-r") != host.ok("exec", "now", "uname", "-r")
    host.ok("restart", "now")
    assert host.ok("exec", "now", "cat", "/root/x") == "files"
