"""Pressure stall information: how much of the time tasks of this host wait for what they need.

Source: Documentation/accounting/psi.rst of the kernel.
"""

from __future__ import annotations

import re
from pathlib import Path

DIRECTORY = Path("/proc/pressure")

_AVERAGE = re.compile(r"^some avg10=([0-9.]+)", re.MULTILINE)

_AMOUNT = re.compile(r"^(MemTotal|MemAvailable): +([0-9]+) kB$", re.MULTILINE)


def average(what: str, directory: Path = DIRECTORY) -> float:
    """Percent of the last ten seconds in which some task waited for `memory`, `cpu` or `io`; 0
    where the kernel does not tell."""
    try:
        found = _AVERAGE.search((directory / what).read_text())
    except OSError:  # built without it, or switched off (psi=0)
        return 0.0
    return float(found[1]) if found else 0.0


def available(file: Path = Path("/proc/meminfo")) -> float:
    """The share of the host's memory that programs can have without swapping (proc(5),
    MemAvailable)."""
    found = dict(_AMOUNT.findall(file.read_text()))
    return int(found["MemAvailable"]) / int(found["MemTotal"])
