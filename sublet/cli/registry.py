"""Commands on registries."""

from __future__ import annotations

import sys

import click

from sublet.cli.completing import image_or_catalog_names
from sublet.cli.output import Progress
from sublet.domain.errors import InvalidArgument
from sublet.domain.progress import silent
from sublet.sdk import Client

TLS = click.option(
    "--tls-verify",
    type=click.BOOL,
    metavar="true|false",
    help="Whether its certificate must be right. Without it: unless it is on loopback.",
)
REGISTRY = click.argument("registry", required=False, default="", metavar="[REGISTRY]")


@click.command()
@click.argument("reference", metavar="NAME[:TAG|@DIGEST]", shell_complete=image_or_catalog_names)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@TLS
def pull(reference: str, quiet: bool, tls_verify: bool | None) -> None:
    """Fetch an image from its registry, or make it from a Debian mirror.

    A short name that `sublet catalog ls` has is built here.

    What a broken pull has fetched is kept: the next one goes on where it broke off.
    """
    with Progress() as progress:
        made = Client().pull(reference, silent if quiet else progress, tls_verify=tls_verify)
    print(made["digest"])


@click.command()
@click.argument("name", metavar="NAME[:TAG]")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@TLS
def push(name: str, quiet: bool, tls_verify: bool | None) -> None:
    """Send an image to the registry in its name, and print the digest that it has there."""
    with Progress() as progress:
        digest = Client().push(name, silent if quiet else progress, tls_verify=tls_verify)
    print(digest)


@click.command()
@REGISTRY
@click.option("-u", "--username", metavar="USER", help="User name; asked for on a terminal.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@TLS
def login(
    registry: str, username: str | None, password_stdin: bool, tls_verify: bool | None
) -> None:
    """Log in to a registry, docker.io if none is named. The credentials stay on this host."""
    if password_stdin and not username:
        raise InvalidArgument("--password-stdin needs a user name.", hint="Give it with -u USER.")
    if not password_stdin and not sys.stdin.isatty():
        raise InvalidArgument(
            "There is no terminal to ask for a password on.",
            hint="Give it on standard input, with -u USER --password-stdin.",
        )
    user = username or click.prompt("Username", err=True)
    if password_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, err=True)
    Client().login(registry, user, password, tls_verify=tls_verify)
    print("Login Succeeded")


@click.command()
@REGISTRY
def logout(registry: str) -> None:
    """Forget the credentials for a registry, docker.io if none is named."""
    name = Client().logout(registry)
    print(f"Removed login credentials for {name}")


COMMANDS = {
    "pull": pull,
    "push": push,
    "login": login,
    "logout": logout,
}
