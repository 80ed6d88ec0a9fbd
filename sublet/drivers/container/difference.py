"""The program that compares an instance's writable layer with what lies below it (layered.py), and
tells the changes, or packs them.

It needs what reading `trusted.*` and everybody's files needs, in a process of its own.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from sublet.archive.failures import explained
from sublet.archive.pack import Options, pack_each
from sublet.archive.transfer import gathered
from sublet.domain.changes import Made, lies_at
from sublet.domain.errors import SubletError
from sublet.drivers import linux
from sublet.drivers.container import child
from sublet.drivers.container.layered import CHANGED, DELETED, Change, changes

# DAC_READ_SEARCH, SYS_ADMIN of capabilities(7).
_CAPABILITIES = 1 << 2 | 1 << 21
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
}


@dataclass(frozen=True, slots=True)
class Layers:
    """`upper` belongs to ids from `base` on; `points` and `parents` as of `Made`. `packed`: the
    changes at or below `paths` (none: all) are wanted as a tar stream."""

    upper: str
    lower: str
    base: int
    points: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    packed: bool = False
    paths: tuple[str, ...] = ()


def argv(layers: Layers) -> list[str]:
    """The command that prints the changes, one JSON object a line, or sends their files."""
    return child.argv(__name__, json.dumps(asdict(layers)))


def main(text: str) -> None:
    """Print the changes; an error goes to standard error as JSON, and the exit code is 1."""
    try:
        data = json.loads(text)
        layers = Layers(**data)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        upper, lower = os.open(layers.upper, flags), os.open(layers.lower, flags)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.capset(_CAPABILITIES)
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
        points = Made(frozenset(layers.points), frozenset(layers.parents))
        found = changes(upper, lower, layers.base, points)
        if layers.packed:
            for piece in gathered(_packed(found, layers)):
                sys.stdout.buffer.write(piece)
        else:
            for change in found:
                print(json.dumps(_row(change)))
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        _end(explained(error, "the instance's file system"))
    except SubletError as error:
        _end(error)
    os._exit(0)


def _end(error: SubletError) -> None:
    print(json.dumps(error.to_dict()), file=sys.stderr, flush=True)
    os._exit(1)


def _row(change: Change) -> dict[str, object]:
    kind = _type(change.status)
    size = change.status.st_size if kind == "file" else 0
    row: dict[str, object] = {
        "kind": change.kind,
        "path": change.path,
        "type": kind,
        "size": size,
    }
    if (change.kind, kind) == (CHANGED, "directory") and change.parent >= 0 and not change.bare:
        row["itself"] = True
    return {**row, "was": _type(change.old)} if change.old and _type(change.old) != kind else row


def _type(status: os.stat_result) -> str:
    return _TYPES.get(stat.S_IFMT(status.st_mode), "special")


def _packed(found: Iterator[Change], layers: Layers) -> Iterator[bytes]:
    """What was added and changed, with the ids that the instance sees. A directory that differs
    in its times alone is left out."""

    def members() -> Iterator[tuple[int, str, str]]:
        for change in found:
            wanted = not layers.paths or any(lies_at(change.path, path) for path in layers.paths)
            if wanted and change.parent >= 0 and change.kind != DELETED and not change.bare:
                yield change.parent, change.path.rpartition("/")[2], change.path[1:]

    return pack_each(members(), Options(base=layers.base))
