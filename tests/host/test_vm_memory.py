"""Acceleration, decided by a guest that really boots."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from sublet.drivers.vm import acceleration, kernels
from sublet.drivers.vm.acceleration import Kind, Probe

PROBES = "sublet-probe-"


def probing() -> list[str]:
    """What is left of attempts: directories and processes."""
    found = [path.name for path in Path(tempfile.gettempdir()).glob(f"{PROBES}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if PROBES in (process / "cmdline").read_text():
                found.append(process.name)
        except OSError:
            continue
    return found


async def test_a_guest_that_boots_is_noticed() -> None:
    assert await acceleration.attempt(kernels.newest(), Kind.TCG, 60) is None
    assert probing() == []


async def test_the_deadline_holds_and_nothing_is_left() -> None:
    said = await acceleration.attempt(kernels.newest(), Kind.TCG, 1)
    assert said is not None
    assert "not ready in time" in said
    assert probing() == []


async def test_a_cancelled_attempt_leaves_nothing() -> None:
    attempt = asyncio.create_task(acceleration.attempt(kernels.newest(), Kind.TCG, 60))
    await asyncio.sleep(0.3)
    assert len(probing()) >= 2
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert probing() == []


async def test_this_host_is_decided_for_good(tmp_path: Path) -> None:
    answer = await Probe(tmp_path).decide(kernels.newest())
    assert answer.reason.endswith(".")
    if answer.kind is Kind.KVM:
        assert answer.reason == "A guest has booted on it."
    if Path("/dev/kvm").exists():
        assert (tmp_path / "acceleration.json").exists()
    assert await Probe(tmp_path).decide(kernels.newest()) == answer
    assert probing() == []
