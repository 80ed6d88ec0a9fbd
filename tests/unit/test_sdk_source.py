"""The blocking SDK is what the asynchronous one makes of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_generated_client_is_current() -> None:
    script = Path(__file__).parents[2] / "scripts" / "unasync.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
