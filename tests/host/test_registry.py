"""Images from registries and back."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
from imagelab import (
    Lab,
    call,
    check_rich,
    free_port,
    make_layout,
    mounted,
    rich_layers,
)

from sublet.domain.errors import (
    InvalidArgument,
    NoSuchImage,
    PullFailed,
)
from sublet.drivers.registry import skopeo

BASE = "debian:bookworm"


# Registries


async def test_pull(lab: Lab, tmp_path: Path, registry: str) -> None:
    layout = make_layout(tmp_path / "layout", *rich_layers(), Cmd=["/x"])
    target = f"docker://{registry}/team/rich:1"
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", target)
    pulls = [lab.images.pull(f"{registry}/team/rich:1") for _ in range(3)]
    images = await asyncio.gather(*pulls)
    assert len({image.digest for image in images}) == 1
    image = images[0]
    assert image.config.cmd == ("/x",)
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=True)
    with pytest.raises(NoSuchImage, match="has no image"):
        await lab.images.pull(f"{registry}/team/rich:2")
    with pytest.raises(NoSuchImage, match="has no image"):
        await lab.images.pull(f"{registry}/none:1")


async def test_registries_that_do_not_answer(lab: Lab) -> None:
    with pytest.raises(PullFailed, match="cannot be reached: it refuses"):
        await lab.images.pull(f"127.0.0.1:{free_port()}/x:1")
    with pytest.raises(InvalidArgument):
        await lab.images.pull("UPPER CASE")


async def test_silent_registry(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that accepts and says nothing is given up in seconds."""
    monkeypatch.setattr(skopeo, "ANSWER", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(PullFailed, match="did not answer"):
            await lab.images.pull(f"127.0.0.1:{port}/x:1")
        assert time.monotonic() - began < 8
