"""Modules of ours that run as programs: alone, in a Python that has loaded nothing else."""

from __future__ import annotations

import sys
from pathlib import Path


def argv(module: str, text: str) -> list[str]:
    """The command that calls the module's `main(text)`; it is run without site."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); "
    code += f"from {module} import main; main(sys.argv[2])"
    return [sys.executable, "-I", "-S", "-c", code, str(Path(__file__).parents[3]), text]
