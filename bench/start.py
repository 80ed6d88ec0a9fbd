"""How long `true` takes in a new container: start, run, delete.

Sublet through the SDK and the CLI, against `docker run --rm` (a dockerd of its own) and the
bare OCI runtimes, in turn within one run. Docker gets the same root filesystem. All but the
bare runtimes give the container a network; those give it an empty one.

    bench/start.py [--rounds N] [--image NAME] [--json] [--only NAME,…] [--rootfs-tar FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common

SUBLET = str(Path(sys.executable).parent / "sublet")
COMMAND = ["true"]
RATIOS = [
    ("docker", "sublet-sdk", "SDK: times faster than docker run --rm (aim: 10)"),
    ("docker", "sublet-cli", "CLI: times faster than docker run --rm (aim: 4)"),
    ("sublet-sdk", "crun", "SDK: times bare crun run (aim: at most 3)"),
    ("podman", "sublet-sdk", "SDK: times faster than podman run --rm"),
]


def sublet_sdk(image: str) -> common.Peer:
    """A foreground run through the SDK, in this process, the instance removed at its end."""
    import sublet

    client = sublet.Client()

    def once() -> None:
        result = client.output(image, COMMAND)
        if result.exit_code != 0:
            raise RuntimeError(f"true exited {result.exit_code}: {result.stderr}")

    return once


def sublet_cli(image: str) -> common.Peer:
    return common.program(SUBLET, "run", "--rm", image, *COMMAND)


def export_rootfs(image: str, work: Path) -> Path:
    """The image's root filesystem as a tar, so that all run the same."""
    tar, name = work / "rootfs.tar", "sublet-bench-export"
    common.program(SUBLET, "rm", "-f", name)()
    common.program(SUBLET, "run", "--name", name, image, *COMMAND, timeout=1800)()
    common.program(SUBLET, "export", name, "-o", str(tar), timeout=300)()
    common.program(SUBLET, "rm", "-f", name)()
    return tar


def docker_peer(stack: ExitStack, work: Path, tar: Path) -> common.Peer:
    docker = stack.enter_context(common.docker(work))
    common.program(*docker, "import", str(tar), "bench:latest", timeout=300)()
    return common.program(*docker, "run", "--rm", "bench:latest", *COMMAND)


def podman_peer(stack: ExitStack, work: Path, tar: Path) -> common.Peer:
    inside = stack.enter_context(common.namespaces(network=True, script="ip link set lo up"))
    podman = ["podman", f"--root={work}/podman", f"--runroot={work}/podman-run"]
    podman += ["--cgroup-manager=cgroupfs"]
    common.program(*podman, "import", str(tar), "bench:latest", inside=inside, timeout=300)()
    return common.program(*podman, "run", "--rm", "bench:latest", *COMMAND, inside=inside)


def peers(
    stack: ExitStack, wanted: list[str], image: str, tar: Path | None
) -> dict[str, common.Peer]:
    """Those of the wanted that this host has, ready to be measured."""
    work = stack.enter_context(common.workspace())
    tools = {"docker": "dockerd", "podman": "podman", "crun": "crun", "runc": "runc"}
    absent = [name for name in wanted if name in tools and not shutil.which(tools[name])]
    if absent:
        print(f"not installed, left out: {', '.join(absent)}", file=sys.stderr)
    tar = tar or export_rootfs(image, work)
    folder = common.bundle(work, tar, COMMAND)
    found: dict[str, common.Peer] = {}
    for name in [name for name in wanted if name not in absent]:
        match name:
            case "sublet-sdk":
                found[name] = sublet_sdk(image)
            case "sublet-cli":
                found[name] = sublet_cli(image)
            case "docker":
                found[name] = docker_peer(stack, work, tar)
            case "podman":
                found[name] = podman_peer(stack, work, tar)
            case _:
                found[name] = stack.enter_context(common.bare_runtime(name, folder))
    return found


def ratios(timings: list[common.Timing]) -> dict[str, float]:
    medians = {timing.name: timing.median for timing in timings}
    return {
        what: medians[over] / medians[under]
        for over, under, what in RATIOS
        if over in medians and under in medians
    }


def version(name: str) -> str:
    try:
        said = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=20)
    except OSError:
        return ""
    return (said.stdout.strip().splitlines() or [""])[0]


def report(timings: list[common.Timing], rounds: int, image: str) -> dict[str, Any]:
    tools = {"docker": "dockerd", "sublet-cli": SUBLET, "sublet-sdk": SUBLET}
    return {
        "benchmark": "start",
        "image": image,
        "rounds": rounds,
        "kernel": platform.release(),
        "timings": [
            {**timing.to_dict(), "version": version(tools.get(timing.name, timing.name))}
            for timing in timings
        ],
        "ratios": ratios(timings),
    }


def draw(result: dict[str, Any]) -> None:
    print(f"true in a new container of {result['image']}, {result['rounds']} rounds in turn\n")
    print(f"{'':12}{'median':>12}{'p90':>12}")
    for timing in sorted(result["timings"], key=lambda each: float(each["median_ms"])):
        median, p90 = timing["median_ms"], timing["p90_ms"]
        print(f"{timing['name']:12}{median:>9.1f} ms{p90:>9.1f} ms   {timing['version']}")
    print()
    for what, ratio in result["ratios"].items():
        print(f"{ratio:>6.1f}  {what}")


def main() -> int:
    """Measure and print; 0 when every round of every peer succeeded."""
    known = ["sublet-sdk", "sublet-cli", "docker", "podman", "crun", "runc"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--image", default="debian:bookworm")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default=",".join(known), help=f"of: {', '.join(known)}")
    parser.add_argument("--rootfs-tar", type=Path, help="instead of the image's own")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"there is no {unknown[0]}; known are {', '.join(known)}")
    with ExitStack() as stack:
        found = peers(stack, wanted, options.image, options.rootfs_tar)
        timings = common.measure(found, options.rounds)
    result = report(timings, options.rounds, options.image)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        draw(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
