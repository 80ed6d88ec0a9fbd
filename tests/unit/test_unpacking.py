"""The copies of images that a kernel cannot id-map: when one is made, and when it goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sublet.domain.errors import ProcessFailed
from sublet.drivers import disk, mount, run
from sublet.drivers import layers as module
from sublet.drivers.layers import Layers

IMAGE = Path("/images/0123.sif")


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layers:
    def show(_file: Path, _offset: int, _length: int, target: Path) -> None:
        (target / "etc").mkdir(exist_ok=True)

    def hide(point: str) -> None:
        if (Path(point) / "etc").exists():
            (Path(point) / "etc").rmdir()

    monkeypatch.setattr(disk, "mount_squashfs", show)
    monkeypatch.setattr(mount, "unmount", hide)
    return Layers(tmp_path / "mounts", tmp_path / "unpacked", mapped=False)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the programs that are called, in order."""
    called, real = [], run.run

    async def noted(argv: list[str]) -> run.Result:
        called.append(argv[0])
        return await real(argv)

    monkeypatch.setattr(run, "run", noted)
    return called


async def test_instances_that_start_together_share_one_copy(
    layers: Layers, programs: list[str]
) -> None:
    starts = (layers.acquire(IMAGE, 0, 1, user) for user in "abcd")
    lowers = set(await asyncio.gather(*starts))
    assert lowers == {layers.unpacked / "0123"}
    assert [path.name for path in lowers.pop().iterdir()] == ["etc"]
    assert programs == ["cp", "sync"]


async def test_the_copy_outlives_the_last_instance_and_goes_with_the_image(
    layers: Layers, programs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 0)
    for user in "ab":
        await layers.acquire(IMAGE, 0, 1, user)
        layers.release(user)
        await asyncio.sleep(0.001)
        assert list(layers.mounts.iterdir()) == []
    assert programs == ["cp", "sync"]
    assert layers.unused({"0123"}) == []
    assert layers.unused(set()) == ["0123"]
    layers.drop("0123")
    assert list(layers.unpacked.iterdir()) == []


async def test_a_mount_stays_for_a_while_after_its_last_instance(layers: Layers) -> None:
    for user in "ab":
        await layers.acquire(IMAGE, 0, 1, user)
        layers.release(user)
        assert [path.name for path in layers.mounts.iterdir()] == ["0123"]
        assert layers.unused({"0123"}) == []
    layers.drop("0123")
    assert list(layers.mounts.iterdir()) == []


async def test_half_a_copy_is_nobodys_unless_it_is_being_made(
    layers: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = layers.unpacked / "0123.partial"

    async def fail(_argv: list[str]) -> run.Result:
        partial.mkdir()
        assert layers.unused({"0123"}) == []
        raise ProcessFailed("cp failed.")

    monkeypatch.setattr(run, "run", fail)
    with pytest.raises(ProcessFailed):
        await layers.acquire(IMAGE, 0, 1, "a")
    assert not partial.exists()
    partial.mkdir()  # by a daemon that was killed
    assert layers.unused({"0123"}) == ["0123.partial"]
