"""What it costs to write into the pool of layers instead of the host's file system directly.

The same writes to a directory of the host and, by turns, to one in the pool of a daemon: both on
the same disk. Nothing to compare where the host's own file system shares blocks.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.lab import Lab
from bench.measure import Findings, Peer, measure, rows
from sublet.domain.config import Config
from sublet.drivers import mount

SEQUENCE, BLOCK, TIMES, FILES = 512 << 20, 8192, 400, 3000


def run(lab: Lab) -> Findings:
    """Each kind of write, to both, in turn."""
    assert lab.sublet.env is not None
    root, run_dir = (Path(lab.sublet.env[key]) for key in ("SUBLET_ROOT", "SUBLET_RUN"))
    pool = mount.base(run_dir, Config(root=root, run=run_dir).identity) / "pool"
    if not pool.is_dir():
        return Findings([], [])
    places = {"host": root / "bench", "pool": pool / "bench"}
    for place in places.values():
        place.mkdir()
    kinds: dict[str, Callable[[Path], None]] = {
        f"{SEQUENCE >> 20} MiB, fsync": sequence,
        f"{TIMES} x 8 KiB overwritten, fdatasync": overwrite,
        f"{TIMES} x 8 KiB appended, fdatasync": append,
        f"{FILES} files of 4 KB": files,
    }
    try:
        found = []
        for kind, work in kinds.items():
            peers = {f"{kind}: {name}": _peer(work, place) for name, place in places.items()}
            found += rows("pool", measure(peers, min(lab.rounds, 5), warm_up=1))
    finally:
        for place in places.values():
            shutil.rmtree(place)
    return Findings(found, [])


def _peer(work: Callable[[Path], None], place: Path) -> Peer:
    return lambda: work(place)


def sequence(place: Path) -> None:
    """A new large file, to the disk."""
    data = os.urandom(1 << 20)
    with (place / "big").open("wb") as file:
        for _ in range(SEQUENCE >> 20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def overwrite(place: Path) -> None:
    """Blocks of that file, as a database's pages."""
    with (place / "big").open("r+b") as file:
        for _ in range(TIMES):
            os.pwrite(file.fileno(), bytes(BLOCK), random.randrange(SEQUENCE // BLOCK) * BLOCK)
            os.fdatasync(file.fileno())


def append(place: Path) -> None:
    """To the end of a new file, as a database's log."""
    with (place / "log").open("wb") as file:
        for _ in range(TIMES):
            file.write(bytes(BLOCK))
            file.flush()
            os.fdatasync(file.fileno())


def files(place: Path) -> None:
    """Many new small files, as a package manager's."""
    (place / "many").mkdir()
    for number in range(FILES):
        (place / "many" / str(number)).write_bytes(bytes(4000))
    shutil.rmtree(place / "many")
