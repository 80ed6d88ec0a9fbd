"""What a registry's image may try: layers that reach out, devices, an absurd configuration."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clilab import assert_explained, small_tree
from conftest import Sublet
from imagelab import Lab, archive, directory, entry, make_layout, mounted
from registrylab import put

from sublet.domain.errors import CorruptImage

TARGET = Path(f"/tmp/sublet-target-{os.getpid()}")
"""What the layers are after, on the host."""


@pytest.fixture
def target() -> Iterator[Path]:
    """A directory of the host's with a file in it."""
    TARGET.mkdir()
    (TARGET / "kept").write_text("host")
    yield TARGET
    assert [path.name for path in TARGET.iterdir()] == ["kept"]
    assert (TARGET / "kept").read_text() == "host"
    (TARGET / "kept").unlink()
    TARGET.rmdir()


LINK = entry("link", type=tarfile.SYMTYPE, linkname=str(TARGET))
UP = "../" * 12 + str(TARGET)[1:]


@pytest.mark.parametrize(
    "layers",
    [
        [archive(LINK), archive(entry("link/new", b"x"))],
        [archive(LINK), archive(entry("link/kept", b"x"))],
        [archive(LINK), archive(directory("link"), entry("link/new", b"x"))],
        [archive(LINK), archive(entry("link/.wh.kept"))],
        [archive(LINK), archive(entry("link/.wh..wh..opq"))],
        [archive(entry(f"{UP}/.wh.kept"))],
        [archive(entry(f"{UP}/.wh..wh..opq"))],
        [archive(entry(f".wh.{UP}/kept"))],
        [archive(entry("d/.wh..")), archive(entry(".wh..."))],
        [archive(entry("d/a", b"x")), archive(entry("e/.wh.*(a)[\\?"), entry("e/b", b"x"))],
        [archive(entry(f"{UP}/new", b"x"))],
        [archive(entry("hard", type=tarfile.LNKTYPE, linkname=f"{UP}/kept"))],
        [archive(entry("hard", type=tarfile.LNKTYPE, linkname=f"{TARGET}/kept"))],
        [archive(LINK, entry("hard", type=tarfile.LNKTYPE, linkname="link/kept"))],
    ],
)
async def test_layers_stay_inside(
    lab: Lab, tmp_path: Path, registry: str, target: Path, layers: list[bytes]
) -> None:
    """The image is refused, or holds what the layers say without what is on the host."""
    name = put(registry, "evil:1", make_layout(tmp_path / "layout", *layers))
    with contextlib.suppress(CorruptImage):
        image = await lab.images.pull(name)
        with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
            for path in tree.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    assert path.read_text() != "host"
            assert not list(tree.rglob("*[[]*"))  # a whiteout of nothing is nothing
    assert not list((lab.root / "downloads").glob("*/*"))


def test_devices_of_an_image_are_dead(sublet: Sublet, tmp_path: Path) -> None:
    """Device nodes stay in the image, and nobody in an instance can open them."""
    tree = small_tree(tmp_path / "tree")
    disk = os.stat(_disk()).st_rdev
    os.mknod(tree / "disk", 0o666 | stat.S_IFBLK, disk)
    os.mknod(tree / "memory", 0o666 | stat.S_IFCHR, os.makedev(1, 1))
    for name in ("disk", "memory"):
        (tree / name).chmod(0o666)
    file = str(tmp_path / "devices.sif")
    sublet.ok("pack", str(tree), "-o", file)
    for name in ("disk", "memory"):
        outcome = sublet("run", "--rm", file, "cat", f"/{name}")
        assert outcome.code == 1
        assert outcome.out == ""
        assert "ermission denied" in outcome.err or "not permitted" in outcome.err


def _disk() -> str:
    """A block device of this host."""
    names = [f"/dev/{name}" for name in sorted(os.listdir("/sys/block"))]
    return next(name for name in names if os.path.exists(name))


ABSURD: list[dict[str, Any]] = [
    {"User": "../../etc/shadow"},
    {"User": "0:99999999999"},
    {"User": "-1"},
    {"WorkingDir": "relative/../../.."},
    {"WorkingDir": "/proc/self/fd/7"},
    {"WorkingDir": "/" + "x" * 5000},
    {"Env": ["=", "A", "=x", "A" * 100000, "PATH=/nowhere\n"]},
    {"Entrypoint": [""]},
    {"Entrypoint": ["/"], "Cmd": ["/"]},
    {"Cmd": ["x" * 100000]},
    {"StopSignal": "SIGNONSENSE"},
    {"StopSignal": "99999"},
    {"ExposedPorts": {"99999999/xyz": {}, "": {}, "../x": {}}},
    {"Volumes": {"../../etc": {}}},
    {"Volumes": {"/proc": {}}},
    {"Volumes": {"/": {}}},
    {"Healthcheck": {"Test": "x", "Interval": "soon"}},
    {"Healthcheck": {"Test": ["CMD"], "Interval": -5, "Retries": 1e300}},
    {"Labels": {"\x1b[2J": "\x1b]0;x\x07"}},
]


@pytest.mark.parametrize("config", ABSURD, ids=lambda config: json.dumps(config)[:40])
def test_absurd_configurations(
    sublet: Sublet, tmp_path: Path, small_layer: bytes, config: dict[str, Any]
) -> None:
    """Such an image runs, or is refused in a sentence; nothing is left in either case."""
    layout = make_layout(tmp_path / "layout", small_layer, **config)
    file = str(tmp_path / "absurd.sif")
    packed = sublet("pack", str(layout), "-o", file)
    if packed.code:
        assert_explained(packed.err)
        return
    sublet.ok("import", file, "-t", "absurd")
    sublet.ok("image", "inspect", "absurd")
    outcome = sublet("run", "--rm", "absurd", "true")
    if outcome.code:
        assert outcome.code in (125, 126, 127)
        assert_explained(outcome.err)
    sublet.ok("rmi", "absurd")


async def test_a_configuration_without_end(lab: Lab, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", archive(entry("a", b"x")), Env=["A=" + "x" * 2**20])
    with pytest.raises(CorruptImage, match="configuration is larger"):
        await lab.images.pack(str(layout), tmp_path / "out.sif")


@pytest.fixture(scope="session")
def small_layer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shell and little else, as a layer."""
    tree = small_tree(tmp_path_factory.mktemp("layer") / "tree")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(tree, ".")
    return buffer.getvalue()
