"""Entry points. `run` and `exec` go straight to their work; everything else through Click."""

from __future__ import annotations

import os
import sys

from sublet.cli import flags
from sublet.domain.errors import NoSuchUser, SubletError
from sublet.sdk import _marks

ENGINE_ERROR, INTERRUPTED = 125, 130
HOT = {"run": flags.RUN, "exec": flags.EXEC}
GROUPS = ("instance", "container")
RUNNING = frozenset({"run", "try", "with"})
"""Verbs whose exit code is a command's: their own failures have a code that tells."""


def main() -> None:
    """`sublet`."""
    _marks.begin()
    _marks.mark("python")
    _leave(_guarded(sys.argv[1:]))


def run_file() -> None:
    """`sublet-run FILE [ARG…]`, the interpreter that a packed file names: run it, delete it after.

    Flags for `run` may be given in SUBLET_FLAGS. On a terminal the file gets one.
    """
    args = ["run", "--rm", "-i"]
    if sys.stdin.isatty() and sys.stdout.isatty():
        args.append("-t")
    import shlex  # here: `run` has no use for it

    args += shlex.split(os.environ.get("SUBLET_FLAGS", ""))
    if len(sys.argv) < 2:
        print("usage: sublet-run FILE [ARG…]", file=sys.stderr)
        sys.exit(ENGINE_ERROR)
    _leave(_guarded([*args, os.path.abspath(sys.argv[1]), *sys.argv[2:]]))


def _leave(code: int) -> None:
    """End the process. Python would first take itself apart, for two milliseconds."""
    _marks.write(" ".join(["sublet", *sys.argv[1:2]]))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more
        code = code or 1
    os._exit(code)


def _guarded(args: list[str]) -> int:
    """Run the command; every error becomes a sentence and an exit code."""
    if len(args) > 1 and args[0] in GROUPS and args[1] in HOT:
        args = args[1:]
    verb = args[0] if args else ""
    try:
        return _dispatch(args)
    except SubletError as error:
        _explain(error)
        return exit_code(verb, error)
    except KeyboardInterrupt:
        print("sublet: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _explain(SubletError(f"{error.strerror or error}{where}."))
        return ENGINE_ERROR if verb in RUNNING else 1


def _explain(error: SubletError) -> None:
    """Say what happened and what to do; names in it may be a stranger's."""
    from sublet.cli.output import printable  # here: most commands end well

    print(f"sublet: {printable(error.message, lines=True)}", file=sys.stderr)
    if error.hint:
        print(f"        {printable(error.hint, lines=True)}", file=sys.stderr)


def exit_code(verb: str, error: SubletError) -> int:
    """Docker's codes: 126, 127 for the command, 125 for `run` itself, 1 for the other verbs."""
    started = verb == "exec" or not isinstance(error, NoSuchUser)
    instances = (RUNNING | HOT.keys()) - {"with"}  # whose command runs on the host
    if verb in instances and started and error.exit_code in (126, 127):
        return error.exit_code
    if error.exit_code == INTERRUPTED:
        return INTERRUPTED
    return ENGINE_ERROR if verb in RUNNING else 1


def _dispatch(args: list[str]) -> int:
    known = HOT.get(args[0]) if args else None
    parsed = flags.parse(known, args[1:]) if known else None
    enough = 2 if args[:1] == ["exec"] else 1
    if parsed and len(parsed[1]) >= enough:
        from sublet.cli import run

        options, rest = parsed
        return (run.run if args[0] == "run" else run.execute)(options, rest)
    from sublet.cli.commands import invoke

    return invoke(args)
