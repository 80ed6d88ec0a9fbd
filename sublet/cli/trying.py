"""`sublet try`: a shell, or a command, whose changes to this directory are only tried."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sublet.cli import run
from sublet.cli.completing import FLAGS, image_or_catalog_names
from sublet.cli.output import Progress, printable
from sublet.cli.tried import Changes, Row, print_answer
from sublet.domain import trying
from sublet.domain.errors import InvalidArgument, NoSuchImage, NoSuchInstance, PullFailed
from sublet.domain.trying import Line, lines
from sublet.sdk import Client
from sublet.sdk.results import instance_spec

IMAGE, NOTHING = "debian:bookworm", "scratch"
SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")
SIZE, DISK = "2x2", "16g"
"""Of an instance that tries, unless said otherwise; the disk is for --host alone."""

_MARK = "try.command"
_SEPARATE = "`--` goes before the command: `sublet try -- make install`. Before it is an image."


@dataclass(frozen=True, slots=True)
class Tree:
    """What is tried: a directory of the host, at the same place inside; `mount` is its name for
    the API, empty for the root. Paths that are told and chosen begin with `prefix`."""

    directory: str
    mount: str
    prefix: str = ""
    held: int | None = None
    """The working directory, opened: its path may lead elsewhere when changes are applied."""


class WithCommand(click.Command):
    """All that comes after `--` is the command, and not looked at."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_MARK] = args[:at], args[at + 1 :]
            return super().parse_args(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise InvalidArgument(error.format_message(), hint=_SEPARATE) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (NoSuchImage, PullFailed) as error:
            if _MARK not in ctx.meta:
                error.hint = f"{_SEPARATE} {error.hint}"
            raise


@click.command("try", cls=WithCommand)
@click.argument(
    "image", metavar="[IMAGE] [-- COMMAND…]", default="", shell_complete=image_or_catalog_names
)
@click.option("--host", is_flag=True, help="Over the host's own files, not an image's.")
@click.option(
    "--apply",
    multiple=True,
    is_flag=False,
    flag_value=".",
    metavar="[PATH]",
    help="Copy the changes out at the end; with PATH (repeatable), those there.",
)
@click.option("--force", is_flag=True, help="Apply over what was changed here meanwhile, too.")
@click.option(
    "--keep", default="", metavar="NAME", help="Keep the instance, stopped, under this name."
)
@click.option("--all", "everything", is_flag=True, help="List every single change.")
@click.option("--json", "as_json", is_flag=True, help="At the end, print the changes as JSON.")
@click.option(
    "--size", default=SIZE, show_default=True, metavar="CPUSxGIB", shell_complete=FLAGS["size"],
    help="vCPUs and GiB of memory, or a size's name.",
)  # fmt: skip
@click.option("--disk", default="", metavar="BYTES", help="The most that may be written.")
@click.option(
    "--network", default="", metavar="NAME|none", shell_complete=FLAGS["network"],
    help="The instance's network.",
)  # fmt: skip
@click.option("--egress", default="", metavar="none|NAME,…", help="Whom it may connect to.")
@click.pass_context
def try_(
    ctx: click.Context,
    /,
    image: str,
    host: bool,
    apply: tuple[str, ...],
    force: bool,
    keep: str,
    everything: bool,
    as_json: bool,
    **limits: str,
) -> int:
    """Try something in a throw-away instance that sees this directory copy-on-write.

    Without a command, a shell. Nothing here changes; at the end it is told what would have, and
    --apply makes it so. With --host the instance sees all of the host's files, copy-on-write, as
    its own: try an `apt install` there. The exit code is the command's.
    """
    here = os.getcwd()
    if host and image:
        raise InvalidArgument(
            "--host is instead of an image.", hint="Write `sublet try --host -- COMMAND`."
        )
    root = "/" if host else here
    wanted = _wanted(apply, here, root, host=host)
    trees = _host_trees() if host else [_here(here)]
    spec = _spec(image, ctx.meta.get(_MARK) or [], trees, host=host, keep=keep, **limits)
    begun = time.time()
    client = Client()
    with contextlib.ExitStack() as files:
        with _instance(client, spec, keep) as (name, code):
            found = {
                tree: files.enter_context(Changes(client.diff(name, mount=tree.mount)))
                for tree in trees
            }
            _show(found, wanted, host=host, everything=everything)
            since = None if force else begun
            if not wanted and not as_json and any(found.values()) and not host:
                wanted = _asked(found[trees[0]], here)
            done = [_apply(client, name, tree, found[tree], wanted, since) for tree in trees]
        applied, kept = (sorted({p for d in done for p in d[key]}) for key in ("applied", "kept"))
        places = [os.path.normpath(f"{root}/{path}") for path in wanted]
        _tell(applied, kept, sum(d["left_out"] for d in done), places)
        if as_json:
            named = {tree.directory.rstrip("/"): rows for tree, rows in found.items()}
            print_answer(code, root, named, {"applied": applied, "kept": kept})
    return code


def _wanted(apply: Sequence[str], here: str, root: str, *, host: bool) -> list[str]:
    """The paths to apply. Raises InvalidArgument."""
    wanted = [trying.meant(path, here, root) for path in apply]
    if host and "/" in wanted:
        raise InvalidArgument(
            "--apply of the host's whole root file system is refused.",
            hint="Name what you want: --apply /usr/local/bin.",
        )
    return wanted


def _spec(
    image: str,
    command: Sequence[str],
    trees: Sequence[Tree],
    *,
    host: bool,
    keep: str,
    size: str,
    disk: str,
    network: str,
    egress: str,
) -> dict[str, Any]:
    here, tty = os.getcwd(), sys.stdin.isatty() and sys.stdout.isatty()
    if here == "/" and not host:
        raise InvalidArgument(
            "The root directory cannot be tried in an image.",
            hint="Go to the directory that you mean, or write `sublet try --host`.",
        )
    mounts = [
        {"source": t.directory, "destination": t.mount, "cow": True} for t in trees if t.mount
    ]
    spec = instance_spec(
        NOTHING if host else image or IMAGE,
        list(command) or SHELL,
        entrypoint=(),
        name=keep,
        working_dir=here,
        user="0:0",
        tty=tty,
        console_size=run.console_size(tty),
        stdin=True,
        init=bool(command),
        size=size,
        disk=disk or (DISK if host else None),
        network=network,
        egress=egress,
        root="host" if host else "",
    )
    return {**spec, "mounts": mounts} if mounts else spec


def _here(path: str) -> Tree:
    return Tree(path, path, held=os.open(".", os.O_RDONLY | os.O_DIRECTORY))


def _host_trees() -> list[Tree]:
    """The root and what else of the host can be shown so; what cannot is said."""
    shown, hidden = trying.host_mounts(Path("/proc/self/mountinfo").read_text())
    if hidden:
        print(f"sublet: not shown inside: {', '.join(map(printable, hidden))}", file=sys.stderr)
    return [Tree("/", ""), *(Tree(point, point, point) for point in shown)]


@contextlib.contextmanager
def _instance(client: Client, spec: dict[str, Any], keep: str) -> Iterator[tuple[str, int]]:
    """Run the instance to its end: its id and exit code. It goes with the block, unless kept, and
    when this process is killed."""
    with contextlib.ExitStack() as stack:
        if not keep:
            spec["lease"] = stack.enter_context(client.lease()).id
        with Progress() as progress:
            session, started = client.foreground(spec, progress)
        run.warn(started)
        if not keep:
            stack.callback(_removed, client, started["id"])
        tty = bool(spec.get("tty"))
        code = run.relay(session, {"interactive": True, "tty": tty})
        client.stop(started["id"], 0)  # it may have been detached from
        yield started["id"], code


def _removed(client: Client, instance_id: str) -> None:
    with contextlib.suppress(NoSuchInstance):
        client.remove(instance_id, force=True, volumes=True)


def _joined(tree: Tree, path: str) -> str:
    return f"{tree.directory.rstrip('/')}{path}"


def _show(
    found: dict[Tree, Changes], wanted: Sequence[str], *, host: bool, everything: bool
) -> None:
    """The changes on standard error: standard output is the command's. Of the host's those are
    only counted that nobody looks for, unless they are `wanted`."""
    quiet = 0

    def loud(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal quiet
        for row in rows:
            if trying.is_noise(row["path"]) and not trying.is_at(row["path"], wanted):
                quiet += 1
            else:
                yield row

    for tree, rows in found.items():
        full = ({**row, "path": tree.prefix + row["path"]} for row in trying.told(rows))
        for line in lines(loud(full) if host and not everything else full, everything=everything):
            print(_text(line, relative=not host), file=sys.stderr)
    if quiet:
        text = (
            f"… and {quiet} in caches, logs, documentation and lists of packages (--all shows them)"
        )
        print(text, file=sys.stderr)
    if not any(found.values()):
        print("Nothing was changed.", file=sys.stderr)


def _text(line: Line, *, relative: bool) -> str:
    text = str(line)
    return printable(text.replace(" /", " ", 1) if relative else text)


def _asked(rows: Changes, here: str) -> list[str]:
    """What somebody at the terminal wants to have of it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return []
    answer = _answer(f"Apply to {printable(here)}? [y/N/choose] ")
    if answer in ("y", "yes"):
        return ["/"]
    if answer not in ("c", "choose"):
        return []
    shown = lines(trying.told(rows))
    return [
        line.path.rstrip("/")
        for line in shown
        if _answer(f"{_text(line, relative=True)}? [y/N] ") in ("y", "yes")
    ]


def _answer(question: str) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower()


def _apply(
    client: Client,
    name: str,
    tree: Tree,
    rows: Changes,
    wanted: Sequence[str],
    since: float | None,
) -> dict[str, Any]:
    """Copy what is wanted of a tree out; `wanted` as the user's root has it."""
    own = [
        path.removeprefix(tree.prefix) or "/"
        for path in wanted
        if trying.is_at(path, [tree.prefix])
    ]
    if not own or not rows:
        return {"applied": [], "kept": [], "left_out": 0}
    done = client.apply_changes(
        name, tree.directory, mount=tree.mount, paths=own, since=since, held=tree.held
    )
    return {**done, **{key: [_joined(tree, p) for p in done[key]] for key in ("applied", "kept")}}


def _tell(
    applied: Sequence[str], kept: Sequence[str], left_out: int, places: Sequence[str]
) -> None:
    if applied:
        print(f"Applied {len(applied)} of the changes.", file=sys.stderr)
    elif places and not kept:
        where = ", ".join(printable(path) for path in places)
        print(f"sublet: nothing to apply: nothing was changed in {where}.", file=sys.stderr)
    for path in kept:
        text = f"sublet: {printable(path)} was changed here meanwhile, and stays (--force)"
        print(text, file=sys.stderr)
    if left_out:
        print(f"sublet: devices, sockets and links left out: {left_out}", file=sys.stderr)


COMMANDS = {"try": try_}
