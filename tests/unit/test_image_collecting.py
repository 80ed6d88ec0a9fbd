"""What a prune of images says that it has freed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sublet.domain.image_filter import ImageFilter
from sublet.engine.collecting import Collecting


@pytest.mark.parametrize("busy", [True, False])
async def test_what_a_build_deletes_itself_is_not_freed_by_a_prune(
    tmp_path: Path, busy: bool
) -> None:
    package = tmp_path / "package.deb"
    package.write_bytes(b"x" * 65536)

    async def empty() -> None:
        package.unlink()  # the store's own doing, or, while it is open, that of the build

    builds: Any = SimpleNamespace(is_open=busy, graph=tmp_path, empty=empty)
    shelf: Any = SimpleNamespace(store=SimpleNamespace(every=tuple), files=None)
    downloads: Any = SimpleNamespace(trim=lambda size: 0)
    collecting = Collecting(shelf, builds, downloads, lambda path: None)
    done = await collecting.prune(ImageFilter(), everything=True, in_use=frozenset)
    assert (done.size > 0) is not busy
