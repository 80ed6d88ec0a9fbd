"""Debian and Ubuntu trees from the host's own package mirror, by mmdebstrap.

The mirror is read from the host's apt sources, the keys are the host's. mmdebstrap runs
as root in namespaces of its own; its tar goes straight into the packer, so a run that
fails or is cancelled leaves nothing but the packer's temporary file, which goes as well.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sublet.domain import suites
from sublet.domain.errors import DiskFull, NoSuchImage, PullFailed, SubletError
from sublet.domain.image import ImageConfig, Step
from sublet.domain.progress import Report
from sublet.domain.suites import Suite
from sublet.drivers import run, squashfs

APT = Path("/etc/apt")
KEYRINGS = Path("/usr/share/keyrings")
HELPER = "/usr/lib/apt/apt-helper"
_TRIFLE = "I: finding correct signed-by value..."
"""The one step of mmdebstrap's that nobody waits for; its other lines end otherwise."""

ANSWER = 20
"""Seconds within which the mirror has to answer."""

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CLEAN = """\
// An image keeps no package caches (apt.conf(5)).
Binary::apt::APT::Keep-Downloaded-Packages "false";
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
Acquire::Languages "none";
"""
_POLICY = """\
#!/bin/sh
# Services are not started by the installation of their package (invoke-rc.d(8)).
exit 101
"""
_EXTRA = (
    ("apt-clean", "/etc/apt/apt.conf.d/", _CLEAN, 0o644),
    ("policy-rc.d", "/usr/sbin/", _POLICY, 0o755),
    # mmdebstrap leaves the host's own here.
    ("hostname", "/etc/", "localhost\n", 0o644),
    ("resolv.conf", "/etc/", "", 0o644),
)
"""Files added to the tree: name, directory, text, mode."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be fetched: the suite's code name, and the lines of its sources.list."""

    suite: Suite
    sources: tuple[str, ...]


def host_sources() -> list[suites.Source]:
    """What the host's apt is configured to use."""
    files = [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]
    texts = [(f.name, f.read_text(errors="replace")) for f in files if f.is_file()]
    return suites.parse_sources(item for item in texts if item[0].endswith((".list", ".sources")))


async def plan(suite: Suite, mirror: str, report: Report) -> Plan:
    """Find the suite on the host's mirror, and its updates where they exist.

    `mirror` is used where the host's sources name none. Raises PullFailed, NoSuchImage.
    """
    known = host_sources()
    main = suites.mirror_for(suite, known) or mirror.rstrip("/")
    security = suites.mirror_for(suite, known, security=True)
    if not main or (suite.distribution == "ubuntu" and not keyring(suite)):
        what = suite.distribution.capitalize()
        raise PullFailed(
            f"The host's apt sources name no {what} mirror whose key is here.",
            hint=f"Set `mirror` in config.toml, or install {suite.distribution}-archive-keyring.",
        )
    report(f"Looking for {suite.name} on {main}")
    name = await _release(main, suite.name)
    if name is None:
        raise NoSuchImage(f"The mirror {main} does not answer, or has no suite '{suite.name}'.")
    more = [(main, f"{name}-updates")]
    if security:
        more.append((security, f"{name}-security"))
    there = await asyncio.gather(*(_release(uri, each) for uri, each in more))
    lines = [(main, name), *(item for item, found in zip(more, there, strict=True) if found)]
    found = Suite(suite.distribution, name)
    return Plan(found, tuple(suites.source_line(u, s, suite.distribution) for u, s in lines))


async def _release(uri: str, suite: str) -> str | None:
    """The code name in the suite's release file; None where there is none.

    apt's own downloader is used, as it knows the host's proxies.
    """
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "InRelease"
        options = ["-o", f"Acquire::http::Timeout={ANSWER}", "-o", "Acquire::Retries=0"]
        argv = [HELPER, *options, "download-file", f"{uri}/dists/{suite}/InRelease", str(target)]
        result = await run.run(run.alone(argv), check=False, timeout=3 * ANSWER)
        if result.code != 0 or not target.exists():
            return None
        match = re.search(r"^Codename: ([a-z][a-z0-9.-]*)$", target.read_text("utf-8"), re.M)
    # The code name of bookworm-updates is bookworm-updates: it is the suite itself.
    return match[1] if match else suite


def keyring(suite: Suite) -> Path | None:
    """The host's keyring for the distribution."""
    found = KEYRINGS / f"{suite.distribution}-archive-keyring.gpg"
    return found if found.exists() else None


def bootstrap_argv(plan: Plan, keys: Path | None, extra: Path) -> list[str]:
    """The call of mmdebstrap that writes the tree as a tar to its standard output."""
    argv = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    argv += [f"--keyring={keys}"] if keys else []
    for name, place, _, _ in _EXTRA:
        argv.append(f"--customize-hook=copy-in {shlex.quote(str(extra / name))} {place}")
    # With the settings above, apt would leave the caches that it made before them.
    argv.append(
        '--customize-hook=rm -f "$1"/var/cache/apt/pkgcache.bin "$1"/var/cache/apt/src*.bin'
    )
    return [*argv, plan.suite.name, "-", *plan.sources]


def image_config(architecture: str, created: str, suite: str) -> ImageConfig:
    """The config of a distribution's image: a shell."""
    step = Step(created, f"mmdebstrap --variant=minbase {suite}")
    return ImageConfig(
        architecture=architecture, created=created, cmd=("bash",), env=(PATH,), history=(step,)
    )


async def bootstrap(plan: Plan, output: Path, *, offset: int, report: Report) -> None:
    """Pack the suite's tree into `output` from `offset` on. Raises PullFailed, DiskFull."""
    report(f"Making {plan.suite.distribution} {plan.suite.name} with mmdebstrap")
    with tempfile.TemporaryDirectory(dir=output.parent) as directory:
        extra = Path(directory)
        for name, _, text, mode in _EXTRA:
            (extra / name).write_text(text)
            (extra / name).chmod(mode)
        argv = run.alone(bootstrap_argv(plan, keyring(plan.suite), extra))
        extra.chmod(0o711)

        def progress(line: str) -> None:
            if line.startswith("I: ") and line.endswith("...") and line != _TRIFLE:
                report(line.removeprefix("I: "))

        # mmdebstrap unpacks the packages into TMPDIR: with the rest of what is temporary.
        options = {"on_line": progress, "env": {"LC_ALL": "C.UTF-8", "TMPDIR": directory}}
        producer = squashfs.Producer(argv, _explain(plan, argv), options)
        await squashfs.pack_output(producer, output, offset=offset)


def _explain(plan: Plan, argv: Sequence[str]) -> Callable[[run.Result], SubletError]:
    def explain(result: run.Result) -> SubletError:
        failure = run.failure(argv, result)
        if isinstance(failure, DiskFull):
            return failure
        lines = [line for line in result.stderr.splitlines() if line.startswith("E: ")]
        why = lines[-1].removeprefix("E: ") if lines else failure.message
        return PullFailed(f"{plan.suite.distribution} {plan.suite.name} cannot be made: {why}")

    return explain
