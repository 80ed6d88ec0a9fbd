"""From an image file that the engine has never seen to the first byte that a container prints.

Sublet takes a file of 60 MB in three ways: one that this host packed (`run FILE`), a stranger's
that is trusted (`import --trust`, then `run`), and a stranger's that it unpacks and packs again
first (`run FILE`). Docker loads an archive of the same root file system, as `docker save | gzip`
writes it. Both daemons are up; the files are in the page cache, or, where it says cold, were
dropped from it.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.engines import IMAGE, NAME, Engine
from bench.host import call, enter, forget
from bench.lab import Lab
from bench.measure import Findings, Timing, measure, ratio, rows
from sublet.image import sif

COMMAND = ("echo", "hello")


def run(lab: Lab) -> Findings:
    """All in turn; what a round makes known is forgotten before the next."""
    packed = _packed(lab)
    archive = _saved(lab) if lab.has("docker") else None
    numbers = iter(range(1 << 30))

    def here(*, cold: bool) -> None:
        file = lab.work / f"image{next(numbers)}.sif"
        shutil.copy(packed, file)
        if cold:
            forget(file)
        _first_output(lab.sublet, "run", "--rm", str(file), *COMMAND)

    def trusted() -> None:
        file = _fresh(lab, packed, next(numbers))
        lab.sublet("import", "--trust", str(file), "-t", file.stem)
        _first_output(lab.sublet, "run", "--rm", file.stem, *COMMAND)

    def foreign() -> None:
        file = _fresh(lab, packed, next(numbers))
        _first_output(lab.sublet, "run", "--rm", str(file), *COMMAND)

    def docker(*, cold: bool) -> None:
        assert archive is not None
        if cold:
            forget(archive)
        lab.docker("load", "-i", str(archive))
        _first_output(lab.docker, "run", "--rm", "saved:latest", *COMMAND)

    peers: dict[str, Callable[[], None]] = {
        "sublet run, packed here": lambda: here(cold=False),
        "sublet run, packed here, cold": lambda: here(cold=True),
        "sublet import --trust + run": trusted,
        "sublet run, foreign": foreign,
    }
    if archive:
        peers["docker load + run"] = lambda: docker(cold=False)
        peers["docker load + run, cold"] = lambda: docker(cold=True)
    timings: dict[str, Timing] = {}
    for _ in range(min(3, lab.rounds)):
        for name, once in peers.items():
            _forget_images(lab, archive is not None)
            timings |= _joined(timings, measure({name: once}, 1, warm_up=0))
    if archive:
        _forget_images(lab, docker=True)
        lab.docker("import", str(lab.tar), NAME)  # for the benchmarks after this one
    aims = [
        aim
        for name in ("sublet run, packed here", "sublet import --trust + run")
        for aim in ratio(
            f"{name}: part of docker load + run",
            timings,
            name,
            "docker load + run",
            1 / 20,
            most=True,
        )
    ]
    return Findings(rows("images", timings), aims)


def _joined(before: dict[str, Timing], new: dict[str, Timing]) -> dict[str, Timing]:
    """The rounds of both."""
    earlier = {name: before[name].rounds if name in before else () for name in new}
    return {name: Timing(name, earlier[name] + new[name].rounds) for name in new}


def _packed(lab: Lab) -> Path:
    """A file that this host packed and has not taken in."""
    tree, packed = lab.work / "tree", lab.work / "packed.sif"
    tree.mkdir()
    call("tar", "-xpf", str(lab.tar), "-C", str(tree))
    (tree / "packed").write_text("here\n")
    lab.sublet("pack", str(tree), "-o", str(packed))
    return packed


def _saved(lab: Lab) -> Path:
    archive = lab.work / "saved.tar.gz"
    plain = lab.work / "saved.tar"
    lab.docker("tag", NAME, "saved:latest")
    lab.docker("save", "-o", str(plain), "saved:latest")
    with plain.open("rb") as source, gzip.open(archive, "wb", 6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    plain.unlink()
    return archive


def _fresh(lab: Lab, packed: Path, number: int) -> Path:
    """The same files with a label of their own: a digest that no engine has seen."""
    target = lab.work / f"image{number}-{os.getpid()}.sif"
    with packed.open("rb") as source:
        info = sif.read(source)
        source.seek(info.offset)
        squashfs = source.read(info.length)
    config = info.config.with_labels({"packed-by": target.stem})
    with target.open("w+b") as made:
        made.seek(sif.payload_offset(config))
        made.write(squashfs)
        made.flush()
        sif.finish(made, config)
    return target


def _forget_images(lab: Lab, docker: bool) -> None:
    """No engine knows the image, nor its root file system under another name."""
    for row in lab.client.images():
        if IMAGE not in row["names"]:
            lab.client.remove_image(row["digest"])
    for file in lab.work.glob("image*.sif"):
        file.unlink()
    if docker:
        lab.docker("system", "prune", "--all", "--force")
    os.sync()


def _first_output(engine: Engine, *args: str) -> None:
    """Run a command until its first byte, and outside the measured time to its end."""
    process = subprocess.Popen(
        [*engine.argv, *args],
        env=engine.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: enter(engine.inside or {}),
    )
    assert process.stdout is not None
    if process.stdout.read(1) != b"h":
        raise RuntimeError(f"{args} said nothing")
    process.stdout.close()
    process.wait(60)
