"""`sublet with`: a command of this host, with services beside it for as long as it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from sublet.cli import companion
from sublet.cli.completing import image_or_catalog_names, size_names
from sublet.cli.output import Progress, printable
from sublet.cli.run import completed, image_of
from sublet.domain.errors import CommandNotExecutable, CommandNotFound, InvalidArgument, SubletError
from sublet.domain.units import parse_duration
from sublet.sdk import Client

KEPT = "1h"
"""How long services stay that are kept for a look."""

_SEPARATE = "`--` goes before the command: `sublet with postgres:15 redis:7 -- pytest`."


class Wrapper(click.Command):
    """A command with another one after `--`, which Click would forget where it begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = args.index("--") if "--" in args else len(args)
        ctx.obj = args[given + 1 :]
        try:
            return super().parse_args(ctx, args[:given])
        except click.NoSuchOption as error:
            if given < len(args):
                raise
            raise InvalidArgument(
                f"`sublet with` has no option {error.option_name}.", hint=_SEPARATE
            ) from error

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND..."]


def beside(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that services have in every command."""
    options = (
        click.option(
            "-e", "--env", multiple=True, metavar="NAME=VALUE",
            help="Set a variable in every service; in one alone: SERVICE:NAME=VALUE.",
        ),
        click.option(
            "--size", default="", metavar="CPUSxGIB", shell_complete=size_names,
            help="vCPUs and GiB of memory of each service, such as 2x4.",
        ),
        click.option("--vm", is_flag=True, help="Run each service as a VM, a kernel of its own."),
        click.option(
            "--timeout", default="60s", metavar="TIME",
            help="How long services may take to be healthy; default 60s.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def service_of(text: str) -> str:
    """A service as it was given; the path of a packed file becomes absolute."""
    name, equals, image = text.rpartition("=")
    return f"{name}{equals}{image_of(image)}"


class Reports:
    """What the services tell: progress while they start, later notes that stand on their own."""

    def __init__(self) -> None:
        self._progress: Progress | None = Progress()

    def __call__(self, line: str) -> None:
        if self._progress:
            self._progress(printable(line))
        else:
            print(f"sublet: {printable(line, lines=True)}", file=sys.stderr, flush=True)

    def __enter__(self) -> Reports:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._progress:
            self._progress.__exit__(*error)
            self._progress = None

    def started(self) -> None:
        """From now on the terminal is the command's."""
        self.__exit__()


@click.command("with", cls=Wrapper)
@click.argument("services", nargs=-1, metavar="SERVICE...", shell_complete=image_or_catalog_names)
@beside
@click.option("--keep", is_flag=True, help=f"Leave the services for a look, for {KEPT} at most.")
@click.pass_obj
def with_services(
    command: list[str],
    services: tuple[str, ...],
    env: tuple[str, ...],
    size: str,
    vm: bool,
    timeout: str,
    keep: bool,
) -> int:
    """Run a command of this host with services beside it: started together, gone with it.

    A SERVICE is an image, such as postgres:15, or NAME=IMAGE. The command runs when all are
    healthy, or take connections, with NAME_HOST, NAME_PORT and NAME_URL of each in its
    environment, and DATABASE_URL of the first SQL database. Its exit code is passed on. The
    services are deleted whatever happens, also when this is killed.
    """
    if not services or not command:
        raise InvalidArgument(
            "There is no command." if services else "There is no service.",
            hint=_SEPARATE,
        )
    try:
        companion.check(command)
    except (CommandNotFound, CommandNotExecutable) as error:
        return _explained(error)
    with (
        Reports() as reports,
        Client().services(
            [service_of(text) for text in services],
            env=completed(env),
            size=size,
            vm=vm,
            timeout=parse_duration(timeout),
            stay=keep,
            progress=reports,
            **({"ttl": KEPT} if keep else {}),
        ) as started,
    ):
        reports.started()
        try:
            return companion.run(command, {**os.environ, **started.environment})
        except (CommandNotFound, CommandNotExecutable) as error:
            return _explained(error)
        finally:
            if keep:
                ids = " ".join(each.instance.name for each in started)
                reports(f"the services stay for {KEPT}; `sublet rm -f {ids}` deletes them")


def _explained(error: SubletError) -> int:
    print(f"sublet: {printable(error.message)}\n        {error.hint}", file=sys.stderr)
    return error.exit_code


COMMANDS = {"with": with_services}
