"""Make the blocking SDK from the asynchronous one: one source, two clients.

`--check` changes nothing and fails if the blocking files are not up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "sublet" / "sdk"
FILES = (
    "billing.py",
    "backups.py",
    "calls.py",
    "client.py",
    "comparing.py",
    "files.py",
    "images.py",
    "instances.py",
    "leases.py",
    "market.py",
    "networks.py",
    "pools.py",
    "sandbox.py",
    "sandbox_exec.py",
    "sandbox_files.py",
    "sandbox_hold.py",
    "sandbox_python.py",
    "sandbox_watch.py",
    "schedules.py",
    "service.py",
    "services.py",
    "storage.py",
    "wire.py",
)
WORDS = (
    (r"async (def|with|for) ", r"\1 "),
    (r" async for ", " for "),
    (r"\bawait ", ""),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\banext\(", "next("),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\ba(next|close)\(", r"\1("),
    (r"\bAsyncGenerator\[(.*), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync([A-Z])", r"\1"),
    (r"_async\b", "_sync"),
    (r", awaited\.", ", blocking."),
)
NOTE = "# Made from ../_async/{name} by scripts/unasync.py; edit that file.\n"


def blocking(text: str, name: str) -> str:
    """The blocking text of an asynchronous module."""
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    text = text.replace(
        "\n\nThe blocking client is made from this file by `scripts/unasync.py`; edit this one.", ""
    )
    return NOTE.format(name=name) + text


def main() -> int:
    stale = []
    for name in FILES:
        made = blocking((ROOT / "_async" / name).read_text(), name)
        target = ROOT / "_sync" / name
        if target.exists() and target.read_text() == made:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            target.write_text(made)
    if stale and "--check" in sys.argv:
        print(f"not up to date: {', '.join(stale)}; run scripts/unasync.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
