"""`run` and `exec` for Click: their help, their completion, and their usage errors."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli import flags, run
from sublet.cli.commands import ONLY_HELP, with_flags
from sublet.cli.completing import image_or_catalog_names, instance_names

_SETTINGS = {"allow_interspersed_args": False}


@click.command("run", context_settings={**_SETTINGS, **ONLY_HELP})
@with_flags(flags.RUN)
@click.argument("image", shell_complete=image_or_catalog_names)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run_command(image: str, command: tuple[str, ...], **options: Any) -> int:
    """Run an instance of IMAGE: a name, a path to a packed file, or a registry's reference.

    Its exit code is the command's; 125 if it could not be started, 126 if the command
    is not executable, 127 if there is none.
    """
    return run.run(options, [image, *command])


@click.command("exec", context_settings=_SETTINGS)
@with_flags(flags.EXEC)
@click.argument("instance", shell_complete=instance_names)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(instance: str, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND in a running INSTANCE."""
    return run.execute(options, [instance, *command])


COMMANDS = {"run": run_command, "exec": exec_command}
