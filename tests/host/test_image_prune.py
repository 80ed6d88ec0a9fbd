"""Collecting images: what nobody needs goes, what anybody needs stays."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from imagelab import Lab, archive, context, entry, make_image, until, write

from sublet.domain.errors import ImageInUse, InvalidArgument
from sublet.drivers.store import files


async def test_dangling_images_go(lab: Lab, tmp_path: Path) -> None:
    old = await make_image(lab, tmp_path, "app")
    new = await make_image(lab, tmp_path, "app")
    used = await make_image(lab, tmp_path)
    planned = await lab.images.prune(in_use=lambda: {used.digest}, dry=True)
    assert [image.digest for image in planned.images] == [old.digest]
    assert len(lab.images.all()) == 3
    done = await lab.images.prune(in_use=lambda: {used.digest})
    assert (done.images, done.size) == (planned.images, planned.size)
    assert done.size >= 90000
    assert not lab.images.files.path(old.digest).exists()
    assert {image.digest for image in lab.images.all()} == {new.digest, used.digest}
    assert (await lab.images.prune(in_use=lambda: {used.digest})).images == ()


async def test_filters(lab: Lab, tmp_path: Path) -> None:
    await make_image(lab, tmp_path)
    assert not (await lab.images.prune(["until=24h"], in_use=set)).images
    assert not (await lab.images.prune(["label=x"], in_use=set)).images
    with pytest.raises(InvalidArgument):
        await lab.images.prune(["reference=x"], in_use=set)
    assert (await lab.images.prune(["label!=x"], in_use=set)).images


async def test_everything(lab: Lab, tmp_path: Path) -> None:
    """-a takes named images and the build cache, and leaves what instances are made of."""
    base = await make_image(lab, tmp_path, "base")
    built = await lab.images.build(
        context(tmp_path / "ctx", "FROM base\nCOPY Containerfile /x\n"), name="built"
    )
    usage = {each.kind: each for each in await lab.images.usage(lambda: {built.digest})}
    assert (usage["images"].count, usage["images"].active) == (2, 1)
    assert usage["images"].reclaimable == lab.images.files.path(base.digest).stat().st_blocks * 512
    assert usage["build cache"].size == usage["build cache"].reclaimable > 90000
    kept = await lab.images.prune(in_use=lambda: {built.digest})
    assert (kept.images, kept.cache) == ((), 0)
    done = await lab.images.prune(everything=True, in_use=lambda: {built.digest})
    assert [image.digest for image in done.images] == [base.digest]
    assert done.cache > 0
    assert [image.digest for image in lab.images.all()] == [built.digest]
    after = {each.kind: each.size for each in await lab.images.usage(set)}
    assert after["build cache"] == 0
    again = await lab.images.import_(write(tmp_path / "b.tar", archive(entry("a", b"x"))))
    lab.images.tag(again.digest, "base")
    await lab.images.build(tmp_path / "ctx", name="built")


async def test_what_is_about_to_be_used_stays(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(archive(entry("a", b"x")))
    image = await lab.images.ensure(str(path))
    assert not (await lab.images.prune(everything=True, in_use=set)).images
    assert lab.images.claim(image.digest)  # the instance is made in the same breath
    assert (await lab.images.prune(in_use=set)).images == (image,)


async def test_a_pack_under_way_keeps_its_image(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, go = await make_image(lab, tmp_path, "app"), threading.Event()
    publish = files.publish

    def slowly(source: Path, output: Path) -> None:
        assert go.wait(30)
        publish(source, output)

    monkeypatch.setattr(files, "publish", slowly)
    packing = asyncio.create_task(lab.images.pack("app", tmp_path / "out.sif"))
    await asyncio.sleep(0)
    assert not (await lab.images.prune(everything=True, in_use=set)).images
    with pytest.raises(ImageInUse, match="just being read"):
        await lab.images.remove("app", in_use=set)
    go.set()
    await packing
    assert (tmp_path / "out.sif").stat().st_size == image.size
    assert (await lab.images.prune(everything=True, in_use=set)).images


async def test_a_build_under_way_keeps_its_base(lab: Lab, tmp_path: Path) -> None:
    """Prunes all along a build; it succeeds, and what it made is there."""
    await make_image(lab, tmp_path, "base")
    place = context(tmp_path / "ctx", "FROM base\nCOPY Containerfile /x\nCOPY Containerfile /y\n")
    building = asyncio.create_task(lab.images.build(place, name="app", report=lab.report))
    await asyncio.sleep(0)  # it has its base now
    while not building.done():
        await lab.images.prune(everything=True, in_use=set)
        await asyncio.sleep(0.01)
    image = building.result()
    assert any("COPY" in line for line in lab.lines)
    assert image.names in ((), ("app:latest",))  # a prune after the end may have taken it
    await until(lambda: not lab.images.builds.is_open)
