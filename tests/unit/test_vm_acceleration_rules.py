"""What is decided about acceleration, without a guest: files, words, what is remembered."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from sublet.domain.errors import ToolMissing
from sublet.drivers.vm import acceleration
from sublet.drivers.vm.acceleration import Acceleration, Host, Kind, Probe
from sublet.drivers.vm.kernels import Kernel

KERNEL = Kernel("6.1", Path("/nowhere"))
HOST = Host("6.18", "7.2.22", "A CPU")
FAILED = Acceleration(Kind.TCG, "A guest did not boot.")


def test_the_guest_that_tries_gets_descriptors_and_no_files() -> None:
    argv = acceleration.arguments("/usr/bin/qemu-system-x86_64", Kind.KVM)
    assert argv[argv.index("-machine") + 1] == "q35,accel=kvm"
    assert argv[argv.index("-cpu") + 1] == "host"
    paths = [word for word in argv if "/" in word and not word.startswith("/usr/bin/")]
    assert all("/proc/self/fd/" in word for word in paths), paths
    assert "accel=tcg" in " ".join(acceleration.arguments("qemu-system-aarch64", Kind.TCG))


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    assert acceleration._closed(tmp_path / "kvm").startswith("There is no ")
    assert acceleration._closed(tmp_path) == f"{tmp_path} cannot be opened: Is a directory."
    (tmp_path / "kvm").touch()
    assert acceleration._closed(tmp_path / "kvm") == ""


def test_no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing, match=f"qemu-system-{os.uname().machine} is not installed"):
        acceleration.program()


def test_why_it_does_not_boot() -> None:
    assert acceleration.why("The machine's agent was not ready in time.\nSeaBIOS\n") == (
        "it was not ready within 5 s."
    )
    assert acceleration.why("QEMU was killed by signal 6: no MSR.\n") == (
        "QEMU was killed by signal 6: no MSR."
    )


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Kernel]:
    """The kernels that were booted, on a host where /dev/kvm opens."""
    booted: list[Kernel] = []

    async def boot(kernel: Kernel) -> Acceleration:
        booted.append(kernel)
        await asyncio.sleep(0.01)
        return FAILED

    async def this_host() -> Host:
        return HOST

    (tmp_path / "kvm").touch()
    monkeypatch.setattr(acceleration, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(acceleration, "boot", boot)
    monkeypatch.setattr(acceleration, "this_host", this_host)
    return booted


async def test_it_is_decided_once(boots: list[Kernel], tmp_path: Path) -> None:
    probe = Probe(tmp_path)
    assert probe.known is None
    answers = await asyncio.gather(*(probe.decide(KERNEL) for _ in range(3)))
    assert [*answers, probe.known] == [FAILED] * 4
    assert await Probe(tmp_path).decide(KERNEL) == FAILED  # by the next daemon
    assert boots == [KERNEL]


@pytest.mark.parametrize("text", ["", "[]", '{"host": {}}', "null"])
async def test_what_is_remembered_may_be_damaged(
    boots: list[Kernel], tmp_path: Path, text: str
) -> None:
    (tmp_path / "acceleration.json").write_text(text)
    assert await Probe(tmp_path).decide(KERNEL) == FAILED
    assert len(boots) == 1
    assert json.loads((tmp_path / "acceleration.json").read_text())["kind"] == "tcg"


async def test_another_host_decides_anew(
    boots: list[Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Probe(tmp_path).decide(KERNEL)

    async def another() -> Host:
        return Host("6.19", HOST.qemu, HOST.cpu)

    monkeypatch.setattr(acceleration, "this_host", another)
    await Probe(tmp_path).decide(KERNEL)
    assert len(boots) == 2


async def test_without_the_device_nothing_is_tried_or_remembered(
    boots: list[Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "DEVICE", tmp_path / "none")
    assert (await Probe(tmp_path).decide(KERNEL)).kind is Kind.TCG
    assert boots == []
    assert not (tmp_path / "acceleration.json").exists()
