"""`sublet image …`: the commands on images under the names that Docker's group has."""

from __future__ import annotations

import click

from sublet.cli import images, making, registry


@click.group()
def image() -> None:
    """Commands on images, gathered: `image ls` is `images`, `image rm` is `rmi`."""


image.add_command(images.images, "ls")
image.add_command(images.inspect_image, "inspect")
image.add_command(images.history, "history")
image.add_command(images.tag, "tag")
image.add_command(images.rmi, "rm")
image.add_command(images.prune_images, "prune")
for _name, _command in (making.COMMANDS | registry.COMMANDS).items():
    if _name not in ("login", "logout"):
        image.add_command(_command, _name)

COMMANDS = {"image": image}
