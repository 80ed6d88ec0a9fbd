"""The Click side: every command with its help, loaded when it is used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sublet.cli import completing, elsewhere, flags
from sublet.cli.main import ENGINE_ERROR, RUNNING

COMMANDS = {
    "run": ("hot", "Run an instance of an image"),
    "exec": ("hot", "Run a command in a running instance"),
    "try": ("trying", "Try something on this directory, or on the host, without changing it"),
    "with": ("services", "Run a command of this host with databases and the like beside it"),
    "db": ("databases", "Start a database, and delete it on Ctrl-C"),
    "ssh": ("ssh", "Log in to a running instance over SSH"),
    "ps": ("ps", "List instances"),
    "inspect": ("instances", "Show all that is known of an instance"),
    "logs": ("watching", "Show what an instance wrote"),
    "top": ("watching", "List the processes of an instance"),
    "stats": ("watching", "Show what instances use"),
    "port": ("watching", "Show where an instance's ports are published"),
    "create": ("life", "Make an instance without starting it"),
    "start": ("life", "Start instances that are stopped"),
    "attach": ("life", "Attach to the first process of a running instance"),
    "stop": ("life", "Ask instances to end"),
    "restart": ("life", "Stop instances and start them again"),
    "kill": ("life", "Send a signal to instances"),
    "pause": ("life", "Freeze instances"),
    "unpause": ("life", "Let paused instances go on"),
    "hibernate": ("life", "Keep the memory of VMs on disk and end them"),
    "wake": ("life", "Let hibernated VMs go on where they were"),
    "rm": ("life", "Delete instances"),
    "wait": ("life", "Wait for instances to end, print their exit codes"),
    "rename": ("life", "Give an instance another name"),
    "update": ("life", "Change limits, restart policy, time to live, idleness"),
    "keepalive": ("idling", "Let instances with --idle count as used"),
    "prune": ("pruning", "Delete instances that are stopped"),
    "instance": ("groups", "All commands on instances; ls, prune"),
    "container": ("groups", "As instance"),
    "cp": ("files", "Copy files into and out of an instance"),
    "diff": ("files", "Show what an instance has changed of its image's files"),
    "commit": ("files", "Make an image of an instance's files"),
    "export": ("instances", "Write an instance's file system to a tar file"),
    "images": ("images", "List images"),
    "image": ("image_group", "Commands on images: inspect, prune and all others"),
    "catalog": ("catalog", "Show the images that are built here by their short names: ls, show"),
    "build": ("making", "Build an image from a Containerfile"),
    "pull": ("registry", "Fetch an image"),
    "push": ("registry", "Send an image to a registry"),
    "login": ("registry", "Log in to a registry"),
    "logout": ("registry", "Forget a registry's credentials"),
    "pack": ("making", "Write an image into one runnable file"),
    "import": ("making", "Take in a packed file, a root file system or a disk"),
    "tag": ("images", "Give an image a further name"),
    "history": ("images", "Show the steps that made an image"),
    "rmi": ("images", "Remove images"),
    "snapshot": ("snapshots", "Keep an instance's files as they are now; ls, inspect, rm"),
    "snapshots": ("snapshots", "List snapshots"),
    "fork": ("snapshots", "Make an instance with the files of another, or of a snapshot"),
    "rollback": ("snapshots", "Give an instance back the files of a snapshot"),
    "backup": ("backups", "Copy an instance's files into a repository; ls, rm, verify, prune"),
    "backups": ("backups", "List backups"),
    "restore": ("backups", "Make an instance of a backup"),
    "volume": ("volumes", "Storage that outlives instances: create, ls, inspect, rm, prune"),
    "network": ("networks", "Commands on networks: create, ls, connect and others"),
    "schedule": ("schedules", "Run images, or start instances, at certain times"),
    "pool": ("pools", "Keep sandboxes ready, to be handed out at once; ls, rm"),
    "system": ("groups", "What takes room on the disk, and freeing it: df, prune"),
    "sizes": ("market", "List the sizes that have names, and their prices"),
    "market": ("market", "Show the spot price, now and before"),
    "spot": ("market", "Commands on spot requests: ls, show, cancel"),
    "rehearse": ("market", "Give an instance notice, and watch what it does"),
    "reclaim": ("market", "Take the capacity of spot instances back"),
    "host": ("system", "Show what this host has and what of it is sold"),
    "cost": ("billing", "Show what instances have cost, and what was saved; what-if"),
    "mcp": ("mcp", "Give agents sandboxes, over the Model Context Protocol"),
    "simulate": ("simulating", "Try placement and market on an imagined fleet"),
    "budget": ("budgets", "What instances and labels may cost: set, ls, rm"),
    "budgets": ("budgets", "List budgets"),
    "browse": ("browse", "Show a page as a certain version of a browser shows it"),
    "compare": ("comparing", "Run an image as containers and as VMs, and compare what they take"),
    "events": ("watching", "Show what happens"),
    "audit": ("system", "Find what is left and belongs to nobody"),
    "daemon": ("system", "Run the daemon in the foreground, or stop it"),
    "version": ("system", "Show versions"),
    "completion": ("system", "Print the completion script of a shell"),
}


ONLY_HELP = {"help_option_names": ["--help"]}
"""For commands whose -h is the host name."""


class Lazy(click.Group):
    """A group whose commands' modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            if known := elsewhere.verb(name):
                raise known
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            if close:
                ctx.fail(f"No such command '{name}'. Do you mean {close[0]}?")
            return None
        module = importlib.import_module(f"sublet.cli.{COMMANDS[name][0]}")
        command = module.COMMANDS[name]
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sublet", message="sublet %(version)s")
def cli() -> None:
    """Rents out slices of this machine: containers and VMs, each from one file."""


def invoke(args: list[str]) -> int:
    """Run a command line; SubletErrors pass through."""
    try:
        result: Any = cli.main(args, prog_name="sublet", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 0
    except click.NoSuchOption as error:
        if known := elsewhere.flag(args, error.option_name):
            raise known from error
        return _usage(args, error)
    except click.ClickException as error:
        return _usage(args, error)
    except click.Abort:
        raise KeyboardInterrupt from None  # as it was before Click
    return result if isinstance(result, int) else 0


def _usage(args: list[str], error: click.ClickException) -> int:
    error.show()
    return ENGINE_ERROR if args[:1] and args[0] in RUNNING else 1


F = TypeVar("F", bound=Callable[..., Any])


def with_flags(table: tuple[flags.Flag, ...]) -> Callable[[F], F]:
    """A decorator: the table's flags as Click options."""

    def decorate(function: F) -> F:
        for flag in reversed(table):
            kind: dict[str, Any] = {"metavar": flag.metavar}
            if flag.kind == "switch":
                kind = {"is_flag": True}
            elif flag.kind == "list":
                kind["multiple"] = True
            kind["shell_complete"] = completing.FLAGS.get(flag.key)
            function = click.option(*flag.names, flag.key, help=flag.help, **kind)(function)
        return function

    return decorate
