"""`sublet ssh`: the host's own SSH client, to an instance that has an sshd."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from sublet.cli.completing import instance_names
from sublet.cli.output import Progress
from sublet.cli.session_key import Key, has_sshd, let_in
from sublet.domain.errors import NoSSH, WrongState
from sublet.sdk import Client

PATIENCE = 120.0
"""Seconds that an sshd, which is installed, gets to come up: a system that has just started."""

_PAUSE, _ANSWER = 0.2, 3.0
_SETTINGS = {"allow_interspersed_args": False}


@click.command(context_settings=_SETTINGS)
@click.option("-l", "--login", "user", default="root", metavar="USER", help="Log in as; root.")
@click.option("-p", "--port", type=click.IntRange(1, 65535), default=22, help="sshd's port; 22.")
@click.argument("name", metavar="INSTANCE", shell_complete=instance_names)
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="[SSH-OPTION|COMMAND]...")
def ssh(user: str, port: int, name: str, rest: tuple[str, ...]) -> int:
    """Log in to a running INSTANCE, or run COMMAND in it, over SSH.

    The instance has to run an sshd; nothing else is set up: a key is made for this session alone,
    and the instance's host keys are checked. What follows INSTANCE is for ssh(1): -N,
    -L 8080:localhost:80, -t, a command. The exit code is that of ssh.
    """
    client = Client()
    instance = client.inspect(name)
    address = _address(instance)
    with Progress() as progress:
        _await_sshd(client, instance, (address, port), progress)
    with _patient(), _attended(client, instance["id"]), let_in(client, instance, user) as key:
        return _run(argv(key, user, address, port, rest[rest[:1] == ("--",) :]))


def argv(key: Key, user: str, address: str, port: int, rest: Sequence[str]) -> list[str]:
    """The call of ssh(1), which takes options after the host as well; the user's configuration
    counts for all that is not said here."""
    settings = {
        "IdentityFile": key.private,
        "IdentitiesOnly": "yes",
        "PreferredAuthentications": "publickey",
        "UserKnownHostsFile": key.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": key.alias,
        "StrictHostKeyChecking": "yes",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "ConnectionAttempts": "5",
        "ControlPath": "none",
        "ProxyCommand": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", *options, "-l", user, "-p", str(port), address, *rest]


def _address(instance: dict[str, Any]) -> str:
    """Where it is reached. Raises WrongState, NoSSH."""
    name = instance["name"]
    if instance["state"] != "running":
        verb = "unpause" if instance["state"] == "paused" else "start"
        raise WrongState(
            f"{name} is {instance['state']}, not running.", hint=f"`sublet {verb} {name}` first."
        )
    if not instance["address"]:
        raise NoSSH(
            f"{name} has no address of its own.",
            hint=f"`sublet network connect NETWORK {name}` gives it one; "
            f"`sublet exec -it {name} sh` needs none.",
        )
    return str(instance["address"])


def _await_sshd(
    client: Client, instance: dict[str, Any], place: tuple[str, int], progress: Progress
) -> None:
    """Return when something listens there. Raises NoSSH where nothing is to be expected."""
    if _answers(place):
        return
    name = instance["name"]
    if not has_sshd(client, instance["id"]):
        raise NoSSH(f"{name} has no sshd.")
    progress(f"Waiting for the sshd of {name}")
    until = time.monotonic() + PATIENCE
    while not _answers(place):
        if time.monotonic() > until:
            raise NoSSH(
                f"{name} has an sshd, but nothing listens on port {place[1]} of {place[0]}.",
                hint="Start it there, or give its port with -p.",
            )
        time.sleep(_PAUSE)


def _answers(place: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(place, _ANSWER):
        return True
    return False


@contextlib.contextmanager
def _attended(client: Client, name: str) -> Iterator[None]:
    """The instance is not idle meanwhile, however long nobody types."""
    attendance = client.attend(name)
    next(attendance)
    try:
        yield
    finally:
        del attendance  # which closes its connection


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """What ends the client must not end us before the key is taken out: the terminal's signals
    reach the client by themselves, and others end it below."""

    def leave(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    kept = {signal.SIGINT: signal.SIG_IGN, signal.SIGQUIT: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in kept.items()}
    before |= {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(call: list[str]) -> int:
    """Run the client on this terminal; its exit code."""
    try:
        pid = os.posix_spawnp(
            call[0],
            call,
            os.environ,
            setsigdef=(signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ),
        )
    except FileNotFoundError:
        raise NoSSH("This host has no SSH client.", hint="Install openssh-client.") from None
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    return code if code >= 0 else 128 - code


COMMANDS = {"ssh": ssh}
