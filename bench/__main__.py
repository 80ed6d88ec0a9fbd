"""All benchmarks in one run, side by side with the peers; a table of the aims at the end.

python -m bench [--only NAME,…] [--rounds N] [--image FILE] [--json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.lab import TOOLS, Lab
from bench.measure import Findings

BENCHES = tuple(
    "start parallel execs images memory many idle snapshot backup pool suite vm sandbox "
    "wake".split()
)


def versions() -> dict[str, str]:
    """Of the peers that are here, as they say it themselves."""
    found = {"kernel": platform.release()}
    for name, tool in TOOLS.items():
        try:
            said = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=20)
        except OSError:
            continue
        found[name] = (said.stdout.strip().splitlines() or [""])[0]
    return found


def draw_rows(name: str, text: str, found: Findings) -> None:
    print(f"\n{name}: {text}\n")
    for row in found.rows:
        value = f"{row.value:,.1f}" if row.value < 1000 else f"{row.value:,.0f}"
        print(f"  {row.what:44}{value:>12} {row.unit:12}{row.note}".rstrip())


def draw_aims(found: list[Findings]) -> None:
    aims = [aim for findings in found for aim in findings.aims]
    print(f"\n{'aim':62}{'reach':>12}{'measured':>12}")
    for aim in aims:
        reach = f"{'<=' if aim.most else '>='} {aim.aim:g} {aim.unit}"
        verdict = "" if aim.met else "   not met"
        print(f"{aim.what:62}{reach:>12}{aim.value:>10.2f} {aim.unit}{verdict}".rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=",".join(BENCHES), help=f"of: {', '.join(BENCHES)}")
    parser.add_argument("--image", type=Path, help="a packed file, instead of debian:bookworm")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := sorted(set(wanted) - set(BENCHES)):
        parser.error(f"there is no {unknown[0]}; known are {', '.join(BENCHES)}")
    lab, found, seen = Lab(options.rounds, options.image), [], versions()
    try:
        if not options.json:
            print("\n".join(f"{name}: {text}" for name, text in seen.items()))
        for name in wanted:
            module = importlib.import_module(f"bench.{name}")
            found.append(module.run(lab))
            if not options.json:
                draw_rows(name, str(module.__doc__).strip().splitlines()[0], found[-1])
                sys.stdout.flush()
    finally:
        lab.close()
    if options.json:
        print(json.dumps(as_data(found, seen, options.rounds), indent=1))
    else:
        draw_aims(found)
    return 0


def as_data(found: list[Findings], seen: dict[str, str], rounds: int) -> dict[str, Any]:
    """What was found, as plain data."""
    return {
        "versions": seen,
        "rounds": rounds,
        "rows": [row.to_dict() for findings in found for row in findings.rows],
        "aims": [aim.to_dict() for findings in found for aim in findings.aims],
    }


if __name__ == "__main__":
    sys.exit(main())
