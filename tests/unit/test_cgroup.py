"""Control groups: which files get which values, on each layout."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sublet.domain.errors import HostUnsupported, WrongState
from sublet.domain.size import Size
from sublet.drivers.cgroup import Cgroups, Hierarchy, hierarchies, limits

SIZE = Size(0.5, 256 << 20)


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    tree = Hierarchy(tmp_path, 2, frozenset({"cpu", "memory", "pids", "io"}))
    return Cgroups("sublet", [tree])


def test_version_2_gets_limits_in_one_directory(v2: Cgroups, tmp_path: Path) -> None:
    v2.setup()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +io"
    assert (tmp_path / "sublet" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +io"
    v2.create("0123456789ab", SIZE, 77)
    own = tmp_path / "sublet" / "0123456789ab"
    assert (own / "cpu.max").read_text() == "50000 100000"
    assert (own / "memory.max").read_text() == str(256 << 20)
    assert (own / "memory.swap.max").read_text() == "0"
    assert (own / "pids.max").read_text() == "77"
    assert v2.procs_files("0123456789ab") == [str(own / "cgroup.procs")]
    assert v2.layout == "v2"
    assert v2.unified


def test_version_1_spreads_over_hierarchies(tmp_path: Path) -> None:
    names = ("cpu", "memory", "pids", "freezer")
    trees = []
    for name in names:
        (tmp_path / name).mkdir()
        trees.append(Hierarchy(tmp_path / name, 1, frozenset({name})))
    groups = Cgroups("sublet", trees)
    groups.setup()
    groups.create("0123456789ab", SIZE, 77)
    found = {
        str(file.relative_to(tmp_path)): file.read_text()
        for file in tmp_path.rglob("*")
        if file.is_file()
    }
    assert found == {
        "cpu/sublet/0123456789ab/cpu.cfs_period_us": "100000",
        "cpu/sublet/0123456789ab/cpu.cfs_quota_us": "50000",
        "cpu/sublet/0123456789ab/cpu.shares": "512",
        "memory/sublet/0123456789ab/memory.limit_in_bytes": str(256 << 20),
        "pids/sublet/0123456789ab/pids.max": "77",
    }
    assert len(groups.procs_files("0123456789ab")) == len(names)
    assert groups.layout == "v1"


def test_shares_become_the_kernels_weights() -> None:
    weights = [dict(limits("cpu", 2, Size(c, 1 << 30), 1))["cpu.weight"] for c in (0.01, 1, 256)]
    assert weights == ["1", "39", "10000"]


def test_a_host_without_a_controller_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostUnsupported, match="memory"):
        Cgroups("sublet", [Hierarchy(tmp_path, 1, frozenset({"cpu"}))])


def test_mountinfo_of_a_mixed_host(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    text = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        f"34 31 0:31 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
        "35 31 0:29 / /somewhere/else rw - cgroup cgroup rw,cpu,cpuacct\n"
    )
    found = hierarchies(text)
    assert [(tree.version, sorted(tree.controllers)) for tree in found] == [
        (1, ["cpu", "cpuacct"]),
        (1, ["name=systemd"]),
        (2, ["hugetlb"]),
    ]


async def test_version_2_is_frozen_when_its_events_say_so(v2: Cgroups, tmp_path: Path) -> None:
    v2.setup()
    v2.create("0123456789ab", SIZE, 77)
    own = tmp_path / "sublet" / "0123456789ab"
    (own / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    freezing = asyncio.ensure_future(v2.freeze("0123456789ab", True))
    await asyncio.sleep(0)
    assert (own / "cgroup.freeze").read_text() == "1"
    assert not freezing.done()
    (own / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    await asyncio.wait_for(freezing, 10)


async def test_what_does_not_freeze_is_thawed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sublet.drivers.cgroup.FREEZE_DEADLINE", 0.01)
    tree = Hierarchy(tmp_path, 1, frozenset({"cpu", "memory", "pids", "freezer"}))
    groups = Cgroups("sublet", [tree])
    groups.setup()
    groups.create("0123456789ab", SIZE, 77)
    state = tmp_path / "sublet" / "0123456789ab" / "freezer.state"
    state.write_text("FREEZING")
    monkeypatch.setattr("sublet.drivers.cgroup._is_frozen", lambda *_: None)
    with pytest.raises(WrongState, match="could not be paused"):
        await groups.freeze("0123456789ab", True)
    assert state.read_text() == "THAWED"


def test_the_limit_with_swap_is_never_the_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Hierarchy(tmp_path, 1, frozenset({"cpu", "memory", "pids"}))
    groups = Cgroups("sublet", [tree])
    groups.setup()
    own = tmp_path / "sublet" / "0123456789ab"
    own.mkdir()
    written: list[str] = []
    monkeypatch.setattr("sublet.drivers.cgroup._write", lambda f, _: written.append(f.name))
    for before, expected in (
        (2 * SIZE.memory, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
        (SIZE.memory // 2, ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]),
    ):
        (own / "memory.memsw.limit_in_bytes").write_text(str(before))
        written.clear()
        groups.limit("0123456789ab", SIZE, 77)
        assert [name for name in written if "memory" in name] == expected


async def test_what_has_ended_meanwhile_is_thawed_and_cannot_be_frozen(v2: Cgroups) -> None:
    await v2.freeze("0123456789ab", False)
    with pytest.raises(WrongState):
        await v2.freeze("0123456789ab", True)
