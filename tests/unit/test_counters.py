"""The counters of cgroups and networks: what their files say."""

from __future__ import annotations

from pathlib import Path

from sublet.domain.stats import Counters
from sublet.drivers import counters
from sublet.drivers.cgroup import Cgroups, Hierarchy

ID = "0123456789ab"


def test_version_2(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path, 2, frozenset({"cpu", "memory", "pids", "io"}))
    own = tmp_path / "sublet" / ID
    own.mkdir(parents=True)
    (own / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (own / "memory.current").write_text("5000\n")
    (own / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
    (own / "pids.current").write_text("3\n")
    (own / "io.stat").write_text("8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n7:0\n")
    found = counters.read(Cgroups("sublet", [tree]), ID, 0)
    assert found == Counters(1.5, 3000, 3, 11, 22, 0, 0)


def test_version_1(tmp_path: Path) -> None:
    names = ("cpu", "cpuacct", "memory", "pids", "blkio")
    trees = [Hierarchy(tmp_path / name, 1, frozenset({name})) for name in names]
    for name in names:
        (tmp_path / name / "sublet" / ID).mkdir(parents=True)
    (tmp_path / "cpuacct/sublet" / ID / "cpuacct.usage").write_text("2500000000\n")
    memory = tmp_path / "memory/sublet" / ID
    (memory / "memory.usage_in_bytes").write_text("9000\n")
    (memory / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 4000\n")
    (tmp_path / "pids/sublet" / ID / "pids.current").write_text("7\n")
    text = "8:0 Read 100\n8:0 Write 50\n8:0 Sync 3\nTotal 150\n"
    (tmp_path / "blkio/sublet" / ID / "blkio.throttle.io_service_bytes").write_text(text)
    found = counters.read(Cgroups("sublet", trees), ID, 0)
    assert found == Counters(2.5, 5000, 7, 100, 50, 0, 0)


def test_an_instance_that_has_just_ended_counts_nothing(tmp_path: Path) -> None:
    tree = Hierarchy(tmp_path, 2, frozenset({"cpu", "memory", "pids"}))
    assert counters.read(Cgroups("sublet", [tree]), ID, 0).memory == 0


def test_traffic_leaves_loopback_out() -> None:
    text = (
        "Inter-|   Receive\n face |bytes\n"
        "    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n"
        "  eth0: 7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n"
    )
    assert counters.traffic(text) == (7, 9)
