"""Programs that cannot be started: why."""

from __future__ import annotations

from pathlib import Path

import pytest

from sublet.domain.errors import ToolMissing
from sublet.drivers import run


async def test_a_directory_that_is_gone_is_no_missing_program(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run.spawn(["true"], cwd=tmp_path / "gone")
    with pytest.raises(ToolMissing):
        await run.spawn(["no-such-program"], cwd=tmp_path)
