"""Containerfile builds, and the flattening of what builds and pulls left in the store.

A build runs as `--isolation oci` with runc: measured on a 170 MB base, two RUN steps take
0.51 s so and 0.66 s with `--isolation chroot`, which hides less. crun of Debian 12 refuses
hosts with hybrid cgroups, runc runs on all. A user namespace (`--userns-uid-map`) would be
as fast, but buildah 1.28 then stores new layers with shifted owners and `COPY --from` of a
stage fails ("host ID 65534 cannot be mapped"). RUN shares the host's network, as it needs
the package mirrors; it has Docker's capabilities without NET_RAW and MKNOD, and seccomp.

Flattening is a mount by the kernel's overlay (whiteouts and opaque directories mean what
they mean at run time) and one pass of mksquashfs over it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sublet.domain.disks import LABEL_DISK
from sublet.domain.errors import BuildFailed, CorruptImage, InvalidArgument, ProcessFailed
from sublet.domain.image import ImageConfig
from sublet.domain.progress import Report
from sublet.drivers import run
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import RUN, TEMPORARY, BuildStore

log = logging.getLogger(__name__)

TIMEOUT = 6 * 3600
MAX_FILE = 1 << 20

_NOISE = re.compile(
    r'\(Reading database \.\.\.[ \d%]*$|time="[^"]*" level=\w+ msg="Failed to remove (cgroup|paths)'
)
"""Lines that tell nothing: dpkg's percentages, twenty for each call of it, and what runc writes
about a step's cgroup that is still busy. The room's end removes that."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build: the directory, the Containerfile's text with bases given by their ids
    in the store, the ignore file beside it if there is one, values for its `ARG`s, and
    what the user calls the bases, by id."""

    context: Path
    text: str
    ignore: Path | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def find_file(directory: Path, file: Path | None) -> Path:
    """The Containerfile of `directory`: `file`, or the first of the usual names.

    Raises InvalidArgument.
    """
    if not directory.is_dir():
        raise InvalidArgument(f"{directory} is not a directory.")
    candidates = [file] if file else [directory / "Containerfile", directory / "Dockerfile"]
    found = next((each for each in candidates if each.is_file()), None)
    if found is None:
        what = str(file) if file else f"{directory}/Containerfile"
        raise InvalidArgument(f"{what} does not exist.", hint="Name the file with -f.")
    return found


def read_file(file: Path) -> str:
    """The Containerfile's text. Raises InvalidArgument."""
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_FILE).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}.") from error


def ignore_beside(file: Path) -> Path | None:
    """The ignore file of this Containerfile alone; the directory's is found by buildah."""
    names = (f"{file.name}.containerignore", f"{file.name}.dockerignore")
    return next((p for name in names if (p := file.with_name(name)).is_file()), None)


def build_argv(store: BuildStore, recipe: Recipe, file: Path, idfile: Path) -> list[str]:
    """The call of buildah that builds `recipe`, its text being in `file`."""
    runtime = ["--isolation", "oci", "--runtime", "runc", "--network", "host"]
    places = ["--runtime-flag", f"root={RUN / 'runc'}", "--cgroup-parent", f"/{store.cgroup}"]
    # The Docker format keeps HEALTHCHECK, which OCI's drops.
    result = ["--format", "docker", "--layers", "--iidfile", str(idfile)]
    rules = ["--ignorefile", str(recipe.ignore)] if recipe.ignore else []
    rules += [f"--build-arg={key}={value}" for key, value in recipe.arguments.items()]
    source = ["--pull=never", *rules, "--file", str(file), str(recipe.context)]
    return store.buildah("build", *runtime, *places, *result, *source)


async def build(store: BuildStore, inside: Inside, recipe: Recipe, report: Report) -> str:
    """Build; the id of the result in the store.

    Raises BuildFailed with what the failing step wrote last, DiskFull.
    """
    token = uuid.uuid4().hex
    file, idfile = store.temporary / f"{token}.file", store.temporary / f"{token}.id"
    lines: list[str] = []

    def progress(line: str) -> None:
        if _NOISE.match(line):
            return
        for identity, name in recipe.names.items():
            line = line.replace(identity, name)
        lines.append(line)
        del lines[:-20]
        report(line)

    try:
        file.write_text(recipe.text)
        argv = inside(build_argv(store, recipe, TEMPORARY / file.name, TEMPORARY / idfile.name))
        await run.run(argv, on_line=progress, timeout=TIMEOUT, env=store.environment)
        return idfile.read_text().strip().partition(":")[2]
    except ProcessFailed as error:
        raise _failed(lines, error) from error
    finally:
        file.unlink(missing_ok=True)
        idfile.unlink(missing_ok=True)


def _failed(lines: list[str], error: ProcessFailed) -> BuildFailed:
    """The step that failed, and why, from what buildah wrote last."""
    found = next((line for line in reversed(lines) if line.startswith("Error: ")), "")
    why = found.removeprefix("Error: ") or (lines[-1] if lines else error.message)
    noise = ("Error: ", "error ", "STEP ", "[", ": exit status")
    before = [line for line in lines if not line.startswith(noise)]
    hint = f"The last output was: {before[-1]}" if before else None
    return BuildFailed(f"The build failed: {why}", hint=hint)


async def config_of(store: BuildStore, inside: Inside, identity: str) -> ImageConfig:
    """The OCI config of an image in the store. Raises CorruptImage."""
    argv = inside(store.buildah("inspect", "--type", "image", identity))
    result = await run.run(argv, check=False, env=store.environment)
    if result.code != 0:  # buildah gives up, with a stack trace, on what has the wrong shape
        log.warning("buildah inspect failed: %s", result.stderr[:4000])
        raise CorruptImage("The image's configuration cannot be read.")
    try:
        data = json.loads(result.stdout)
        # buildah gives both forms of the config; HEALTHCHECK is in Docker's alone.
        config = ImageConfig.from_json(json.dumps(data["Docker"]).encode())
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptImage("The image's configuration cannot be read.") from error
    # A label cannot make a disk of a file system.
    labels = {key: value for key, value in config.own_labels.items() if key != LABEL_DISK}
    return replace(config, labels=labels)


@asynccontextmanager
async def mounted(store: BuildStore, inside: Inside, identity: str) -> AsyncIterator[Path]:
    """The image's flattened tree, mounted; the path is valid inside the room only."""
    name = f"sublet-{uuid.uuid4().hex}"
    create = store.buildah("from", "--pull=never", "--name", name, identity)
    await run.run(inside(create), env=store.environment)
    try:
        result = await run.run(inside(store.buildah("mount", name)), env=store.environment)
        yield Path(result.stdout.decode().strip())
    finally:
        # After a cancellation, the room's end and `clean_leftovers` do the same.
        with contextlib.suppress(ProcessFailed):
            await run.run(inside(store.buildah("rm", name)), env=store.environment, timeout=60)
