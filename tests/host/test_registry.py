"""Images from registries and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from clilab import size_of
from imagelab import (
    Lab,
    archive,
    check_rich,
    context,
    entry,
    free_port,
    make_image,
    make_layout,
    mounted,
    rich_layers,
    until,
)
from registrylab import Front, put

from sublet.domain.errors import (
    CorruptImage,
    InvalidArgument,
    NoSuchImage,
    PullFailed,
)
from sublet.drivers.registry import blobs, resolve

BIG = 24 << 20


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Lab]:
    """A second daemon's images."""
    made = Lab(tmp_path / "other")
    try:
        yield made
        await made.assert_clean()
    finally:
        made.close()


@pytest.fixture
def front(registry: str) -> Iterator[Front]:
    with Front(int(registry.rpartition(":")[2])).open() as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries of a broken download, hardly any time passes."""
    monkeypatch.setattr(blobs, "PAUSE", 0.01)


def big(place: Path, count: int = 1) -> Path:
    """A layout with layers that do not compress."""
    layers = [archive(entry(f"noise{number}", os.urandom(BIG))) for number in range(count)]
    return make_layout(place, *layers)


async def test_pull(lab: Lab, tmp_path: Path, registry: str) -> None:
    layout = make_layout(tmp_path / "layout", *rich_layers(), Cmd=["/x"])
    name = put(registry, "team/rich:1", layout)
    images = await asyncio.gather(*(lab.images.pull(name) for _ in range(3)))
    assert len({image.digest for image in images}) == 1
    image = images[0]
    assert image.config.cmd == ("/x",)
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=True)
    assert not list((lab.root / "downloads").glob("*/*"))
    with pytest.raises(NoSuchImage, match="has no image"):
        await lab.images.pull(f"{registry}/team/rich:2")
    with pytest.raises(NoSuchImage, match="has no image"):
        await lab.images.pull(f"{registry}/none:1")


@pytest.mark.parametrize("options", [("--format", "v2s2"), ("--dest-compress-format", "zstd")])
async def test_other_formats(
    lab: Lab, tmp_path: Path, registry: str, options: tuple[str, str]
) -> None:
    layout = make_layout(tmp_path / "layout", archive(entry("a", b"x" * 5000)), Cmd=["/x"])
    image = await lab.images.pull(put(registry, "other:1", layout, *options))
    assert image.config.cmd == ("/x",)


async def test_digests_mean_what_they_meant(lab: Lab, tmp_path: Path, registry: str) -> None:
    """A tag moves in the registry; a digest does not, and needs no network."""
    name = put(registry, "app:1", make_layout(tmp_path / "one", archive(entry("a", b"1"))))
    first = await lab.images.pull(name, report=lab.report)
    (pinned,) = lab.images.repo_digests(first)
    assert pinned.startswith(f"{registry}/app@sha256:")
    assert f"Digest: {pinned.partition('@')[2]}" in lab.lines
    put(registry, "app:1", make_layout(tmp_path / "two", archive(entry("a", b"2"))))
    second = await lab.images.pull(name)
    assert second.digest != first.digest
    for text in (pinned, pinned.partition("@")[2], f"{registry}/app@{first.digest}", first.digest):
        found = lab.images.local(text)
        assert found
        assert (found.digest, found.names) == (first.digest, ())
    await lab.images.remove(first.digest, in_use=set)
    assert lab.images.local(pinned) is None
    again = await lab.images.ensure(pinned)
    assert (again.config.history, again.names) == (first.config.history, ())
    assert pinned in lab.images.repo_digests(again)
    assert lab.images.get(name).digest == second.digest
    with pytest.raises(NoSuchImage):
        await lab.images.pull(f"{registry}/app@sha256:{'0' * 64}")


async def test_what_is_here_is_not_fetched_again(lab: Lab, tmp_path: Path, front: Front) -> None:
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout"))
    image = await lab.images.pull(f"{front.name}/app:1")
    assert front.served > BIG
    before = front.served
    assert (await lab.images.pull(f"{front.name}/app:1", report=lab.report)) == image
    assert front.served == before
    assert any("is here already" in line for line in lab.lines)


async def test_progress(lab: Lab, tmp_path: Path, front: Front) -> None:
    """Bytes done of each blob, and the whole."""
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout", 2))
    await lab.images.pull(f"{front.name}/app:1", report=lab.report)
    told = [line for line in lab.lines if line.startswith("layer ")]
    assert len({line.split(":")[0] for line in told}) == 2
    assert any("24.0 MiB of 24.0 MiB (in all 48.0 MiB of 48.0 MiB)" in line for line in told)


async def test_a_broken_connection_is_taken_up(lab: Lab, tmp_path: Path, front: Front) -> None:
    """Every connection ends after 5 MB; one pull brings the whole, and no byte twice."""
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout"))
    front.cut = 5 << 20
    await lab.images.pull(f"{front.name}/app:1")
    assert BIG < front.served < BIG + (1 << 20)
    assert f"bytes={4 * front.cut}-" in front.ranges


async def test_a_broken_pull_goes_on(lab: Lab, tmp_path: Path, front: Front) -> None:
    """The registry dies in the middle; the next pull fetches what is missing and no more."""
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout"))
    front.cut, front.dies = 10 << 20, True
    with pytest.raises(PullFailed, match="did not deliver") as failed:
        await lab.images.pull(f"{front.name}/app:1")
    assert "goes on where it broke off" in failed.value.hint
    usage = {each.kind: each for each in await lab.images.usage(set)}
    assert usage["downloads"].size == usage["downloads"].reclaimable >= 10 << 20
    assert await lab.images.leftovers() == []
    await until(lambda: front.busy == 0)
    front.cut, front.dies, front.served = None, False, 0
    await lab.images.pull(f"{front.name}/app:1", report=lab.report)
    assert front.served < BIG - (9 << 20)
    assert any("10.0 MiB of 24.0 MiB are here" in line for line in lab.lines)
    assert not list((lab.root / "downloads").glob("*/*"))


async def test_a_cancelled_pull_goes_on(lab: Lab, tmp_path: Path, front: Front) -> None:
    """So does one that was interrupted, of several layers."""
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout", 3))
    front.cut = 2 << 20
    pulling = asyncio.create_task(lab.images.pull(f"{front.name}/app:1"))
    await until(lambda: front.served >= 20 << 20)
    pulling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await pulling
    await until(lambda: front.busy == 0)
    kept = sum(path.stat().st_size for path in (lab.root / "downloads").glob("*/*"))
    assert kept >= 12 << 20
    front.cut, front.served = None, 0
    await lab.images.pull(f"{front.name}/app:1")
    assert front.served <= 3 * BIG + (1 << 20) - kept


KILLED = """
import asyncio, sys
from pathlib import Path
from sublet.domain.config import Config
from sublet.drivers.store.database import Database
from sublet.drivers.store.images import ImageStore
from sublet.engine.images import Images
root, run, name = *map(Path, sys.argv[1:3]), sys.argv[3]
images = Images(Config(root=root, run=run), ImageStore(Database(root / "sublet.db")))
asyncio.run(images.pull(name))
"""


def holders(path: Path) -> list[str]:
    """The processes that have a file below `path` open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        links = []
        with contextlib.suppress(OSError):  # it has ended
            links = [process / "fd" / fd for fd in os.listdir(process / "fd")]
        for link in links:
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith(f"{path}/"):
                    found.append(process.name)
    return found


async def test_a_pull_of_a_killed_daemon_goes_on(lab: Lab, tmp_path: Path, front: Front) -> None:
    """Its downloads end with it; the next daemon takes up what is there."""
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout"))
    front.cut, front.stall = 10 << 20, threading.Event()
    name = f"{front.name}/app:1"
    argv = [sys.executable, "-c", KILLED, str(lab.root), str(lab.run), name]
    daemon = await asyncio.create_subprocess_exec(*argv)
    downloads = lab.root / "downloads"
    most = (10 << 20) - (64 << 10)  # what it has received and not written yet is lost with it
    await until(lambda: size_of(downloads) >= most)
    assert holders(downloads)
    daemon.kill()
    await daemon.wait()
    await until(lambda: not holders(downloads))
    front.stall.set()
    await until(lambda: front.busy == 0)
    await lab.images.clean()
    front.cut, front.served = None, 0
    assert await lab.images.pull(name)
    assert front.served < BIG - (9 << 20)


async def test_a_registry_without_ranges(lab: Lab, tmp_path: Path, front: Front) -> None:
    """It gives whole blobs only: what is half there is fetched anew."""
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout"))
    front.whole, front.cut = True, 10 << 20
    with pytest.raises(PullFailed):
        await lab.images.pull(f"{front.name}/app:1")
    front.cut = None
    assert await lab.images.pull(f"{front.name}/app:1")


async def test_a_changed_byte_is_found(lab: Lab, tmp_path: Path, front: Front) -> None:
    put(f"localhost:{front.port}", "app:1", make_layout(tmp_path / "l", archive(entry("a", b"x"))))
    front.flip = True
    with pytest.raises(CorruptImage, match="does not have its digest"):
        await lab.images.pull(f"{front.name}/app:1")
    assert not list((lab.root / "downloads").glob("*/*"))
    assert lab.images.all() == []


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda m: m["layers"][0].update(size=5), PullFailed),
        (lambda m: m["layers"][0].update(size=m["layers"][0]["size"] + 5), PullFailed),
        (lambda m: m["layers"][0].update(size=-1), CorruptImage),
        (lambda m: m["layers"][0].update(digest="sha256:../../../etc/passwd"), CorruptImage),
        (lambda m: m.update(layers={}), CorruptImage),
        (lambda m: m.update(config={"digest": "sha256:" + "0" * 64, "size": 7}), PullFailed),
        (lambda m: m.update(mediaType="../../x"), CorruptImage),
    ],
)
async def test_hostile_manifests(
    lab: Lab,
    tmp_path: Path,
    front: Front,
    damage: Callable[[dict[str, object]], None],
    error: type[Exception],
) -> None:
    layout = make_layout(tmp_path / "layout", archive(entry("a", b"x" * 100)))
    put(f"localhost:{front.port}", "app:1", layout)
    index = json.loads((layout / "index.json").read_text())
    text = (layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text()
    manifest = json.loads(text)
    for item in (manifest["config"], *manifest["layers"]):
        put_blob(front, layout, item["digest"])
    damage(manifest)
    front.replies["/v2/app/manifests/1"] = json.dumps(manifest).encode()
    with pytest.raises(error):
        await lab.images.pull(f"{front.name}/app:1")
    assert lab.images.all() == []


def put_blob(front: Front, layout: Path, digest: str) -> None:
    """The registry's copy of a blob is compressed; the front gives it as it is."""
    data = (layout / "blobs/sha256" / digest[7:]).read_bytes()
    front.replies[f"/v2/app/blobs/{digest}"] = data


async def test_another_manifest_than_asked_for(lab: Lab, tmp_path: Path, front: Front) -> None:
    layout = make_layout(tmp_path / "layout", archive(entry("a", b"x")))
    put(f"localhost:{front.port}", "app:1", layout)
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    data = (layout / "blobs/sha256" / manifest[7:]).read_bytes()
    wanted = f"sha256:{'1' * 64}"
    front.replies[f"/v2/app/manifests/{wanted}"] = data
    with pytest.raises((CorruptImage, PullFailed)):
        await lab.images.pull(f"{front.name}/app@{wanted}")
    assert lab.images.all() == []


async def test_mirrors(tmp_path: Path, registry: str) -> None:
    """The mirror is asked first, the registry when it does not have the image."""
    put(registry, "hub/library/app:1", make_layout(tmp_path / "l", archive(entry("a", b"x"))))
    mirrored = Lab(
        tmp_path / "mirrored", mirrors=(("docker.io", other), ("docker.io", f"{registry}/hub"))
    )
    try:
        image = await mirrored.images.pull("app:1", report=mirrored.report)
        assert image.names == ("app:1",)
        assert any("Asking the next one" in line for line in mirrored.lines)
    finally:
        mirrored.close()


async def test_push_and_pull_elsewhere(lab: Lab, other: Lab, tmp_path: Path, registry: str) -> None:
    """What was built here is the same there: files, config, history."""
    layout = make_layout(tmp_path / "layout", *rich_layers(), Cmd=["/x"], Labels={"a": "b"})
    await lab.images.pack(str(layout), tmp_path / "base.sif")
    await lab.images.import_(tmp_path / "base.sif", name="base")
    place = context(tmp_path / "ctx", 'FROM base\nENV A=b\nCOPY Containerfile /c\nCMD ["y"]\n')
    name = f"{registry}/team/app:1"
    image = await lab.images.build(place, name=name)
    digest = await lab.images.push(name, report=lab.report)
    assert lab.images.repo_digests(image) == [f"{registry}/team/app@{digest}"]
    for text in (name, f"{registry}/team/app@{digest}"):
        pulled = await other.images.pull(text)
    ours, theirs = image.config, pulled.config
    assert [step.created_by for step in ours.history] == [s.created_by for s in theirs.history]
    for key in ("cmd", "env", "entrypoint", "architecture", "created", "working_dir"):
        assert getattr(ours, key) == getattr(theirs, key)
    assert theirs.labels["a"] == "b"
    with mounted(other.images.files.path(pulled.digest), pulled.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=True)
        assert (tree / "c").exists()
    assert (await lab.images.pull(name)).digest == image.digest  # known by what was pushed


async def test_pushing_again_sends_nothing(
    lab: Lab, other: Lab, tmp_path: Path, registry: str
) -> None:
    """Not by the daemon that pushed before, and not by another one that has the same file."""
    path = tmp_path / "noise.tar"
    path.write_bytes(archive(entry("noise", os.urandom(3 << 20))))
    name = f"{registry}/app"
    image = await lab.images.import_(path, name=f"{name}:1")
    first = await lab.images.push(f"{name}:1")
    stored = {p: p.stat().st_mtime_ns for p in (tmp_path / "registry").rglob("data")}
    lab.images.tag(image.digest, f"{name}:2")
    assert await lab.images.push(f"{name}:2", report=lab.report) == first
    assert "Making a layer of the image" not in lab.lines
    await lab.images.pack(f"{name}:1", tmp_path / "app.sif")
    await other.images.import_(tmp_path / "app.sif", name=f"{name}:3", trust=True)
    assert await other.images.push(f"{name}:3", report=other.report) == first
    assert "Making a layer of the image" in other.lines
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "registry").rglob("data")} == stored
    with pytest.raises(NoSuchImage, match="no image with the name"):
        await lab.images.push(f"{registry}/none:1")


async def test_what_the_registry_lost_is_pushed_anew(
    lab: Lab, tmp_path: Path, registry: str
) -> None:
    name = f"{registry}/app:1"
    await make_image(lab, tmp_path, name)
    first = await lab.images.push(name)
    shutil.rmtree(tmp_path / "registry" / "docker/registry/v2/repositories/app")
    assert await lab.images.push(name) == first


async def test_a_prune_spares_a_pull_under_way(lab: Lab, tmp_path: Path, front: Front) -> None:
    put(f"localhost:{front.port}", "app:1", big(tmp_path / "layout", 2))
    pulling = asyncio.create_task(lab.images.pull(f"{front.name}/app:1"))
    while not pulling.done():
        await lab.images.prune(in_use=set)
        await asyncio.sleep(0.01)
    assert pulling.result().names == (f"{front.name}/app:1",)
    assert front.served < 2 * BIG + (1 << 20)


async def test_registries_that_do_not_answer(lab: Lab) -> None:
    with pytest.raises(PullFailed, match="cannot be reached: it refuses"):
        await lab.images.pull(f"127.0.0.1:{free_port()}/x:1")
    with pytest.raises(InvalidArgument):
        await lab.images.pull("UPPER CASE")


async def test_silent_registry(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that accepts and says nothing is given up in seconds."""
    from sublet.engine import registries

    assert registries.ANSWER == resolve.ANSWER
    monkeypatch.setattr(registries, "ANSWER", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(PullFailed, match="did not answer"):
            await lab.images.pull(f"127.0.0.1:{port}/x:1")
        assert time.monotonic() - began < 15
