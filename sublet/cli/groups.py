"""`sublet instance …` and `sublet system …`: commands under the names that Docker's groups have."""

from __future__ import annotations

import click

from sublet.cli import files, hot, instances, life, pruning, ps, ssh, system, watching


@click.group()
def instance() -> None:
    """Commands on instances, gathered: `instance ls` is `ps`, and so on."""


@click.group("system")
def system_group() -> None:
    """Commands on the host's room: df, prune; and events."""


_MODULES = (hot, ssh, life, watching, instances, files, pruning)
for _module in _MODULES:
    for _name, _command in _module.COMMANDS.items():
        if _name != "events":
            instance.add_command(_command, _name)
instance.add_command(ps.ps, "ls")
system_group.add_command(pruning.df, "df")
system_group.add_command(pruning.prune_system, "prune")
system_group.add_command(watching.events, "events")
system_group.add_command(system.host, "info")

COMMANDS = {"instance": instance, "container": instance, "system": system_group}
