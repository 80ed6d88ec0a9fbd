"""Commands that start, stop and alter instances."""

from __future__ import annotations

from typing import Any

import click

from sublet.cli import launch, run
from sublet.cli.commands import ONLY_HELP, with_flags
from sublet.cli.common import each, each_named
from sublet.cli.completing import image_or_catalog_names
from sublet.cli.flags import CREATE
from sublet.cli.instances import NAME, NAMES
from sublet.cli.output import Progress
from sublet.cli.run import warn
from sublet.domain.errors import InvalidArgument, NoSuchInstance
from sublet.domain.units import parse_duration
from sublet.sdk import Client

DETACH_KEYS = click.option(
    "--detach-keys", metavar="KEYS", help="Keys that detach; ctrl-p,ctrl-q without it."
)
TIME = click.option("-t", "--time", "timeout", metavar="TIME", help="Kill after this, such as 10s.")
NO_WAIT = click.option(
    "--no-wait", is_flag=True, help="Fail if spot instances would have to make room."
)
CONDITIONS = ("stopped", "running", "healthy", "removed")


@click.command(context_settings={"allow_interspersed_args": False, **ONLY_HELP})
@with_flags(CREATE)
@click.argument("image", shell_complete=image_or_catalog_names)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def create(image: str, command: tuple[str, ...], **options: Any) -> int:
    """Make an instance of IMAGE, as `run` does, and print its id; `start` starts it."""
    return launch.create(options, [image, *command])


@click.command()
@NAMES
@click.option("-a", "--attach", "attached", is_flag=True, help="Show what it writes.")
@click.option("-i", "--interactive", is_flag=True, help="With -a: pass standard input on.")
@NO_WAIT
@DETACH_KEYS
def start(
    names: tuple[str, ...],
    attached: bool,
    interactive: bool,
    no_wait: bool,
    detach_keys: str | None,
) -> int:
    """Start instances that are stopped. With -a or -i, the exit code is the command's."""
    client = Client()
    if attached or interactive:
        if len(names) != 1:
            raise InvalidArgument("Only one instance can be attached to.", hint="Leave out -a -i.")
        with Progress() as progress:
            session, row = client.attach(names[0], progress, start=True, wait=not no_wait)
        options = {"interactive": interactive, "detach_keys": detach_keys, "tty": row["tty"]}
        return run.relay(session, options)

    with Progress() as progress:
        return each_named(names, lambda name: warn(client.start(name, progress, wait=not no_wait)))


@click.command()
@NAME
@click.option("--no-stdin", is_flag=True, help="Do not pass standard input on.")
@click.option("--sig-proxy", metavar="BOOL", help="true or false: pass signals on.")
@DETACH_KEYS
def attach(name: str, no_stdin: bool, sig_proxy: str | None, detach_keys: str | None) -> int:
    """Attach this terminal to the first process of a running instance.

    The keys ctrl-p ctrl-q leave it running. The exit code is the command's.
    """
    session, row = Client().attach(name)
    options = {"detach_keys": detach_keys, "tty": row["tty"], "sig_proxy": sig_proxy}
    options["interactive"] = row["stdin"] and not no_stdin
    return run.relay(session, options, ends_input=False)


@click.command()
@NAMES
@TIME
def stop(names: tuple[str, ...], timeout: str | None) -> int:
    """Ask instances to end, and end them when their time is up. A stopped one is fine."""
    client = Client()
    seconds = None if timeout is None else parse_duration(timeout)
    return each_named(names, lambda name: client.stop(name, seconds))


@click.command()
@NAMES
@TIME
def restart(names: tuple[str, ...], timeout: str | None) -> int:
    """Stop instances, and start them again."""
    client = Client()
    seconds = None if timeout is None else parse_duration(timeout)
    return each_named(names, lambda name: client.restart(name, seconds))


@click.command()
@NAMES
@click.option("-s", "--signal", "signal", default="SIGKILL", metavar="SIGNAL", show_default=True)
def kill(names: tuple[str, ...], signal: str) -> int:
    """Send a signal to the first process of instances."""
    client = Client()
    return each_named(names, lambda name: client.kill(name, signal))


@click.command()
@NAMES
def pause(names: tuple[str, ...]) -> int:
    """Freeze all processes of instances: they keep their memory and use no CPU."""
    return each_named(names, Client().pause)


@click.command()
@NAMES
def unpause(names: tuple[str, ...]) -> int:
    """Let paused instances go on."""
    return each_named(names, Client().unpause)


@click.command()
@NAMES
def hibernate(names: tuple[str, ...]) -> int:
    """Keep the memory of running VMs on disk and end them; they take no memory of the host then.

    `wake` lets them go on where they were, also after the host was down.
    """
    return each_named(names, Client().hibernate)


@click.command()
@NAMES
@NO_WAIT
def wake(names: tuple[str, ...], no_wait: bool) -> int:
    """Let hibernated VMs go on where they were; `start` does so, too."""
    client = Client()
    with Progress() as progress:
        return each_named(names, lambda name: client.wake(name, progress, wait=not no_wait))


@click.command()
@NAMES
@click.option("-f", "--force", is_flag=True, help="Running ones too; what is not there is fine.")
@click.option("-v", "--volumes", is_flag=True, help="Volumes without a name as well.")
def rm(names: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Delete instances and everything that they had."""
    client = Client()
    return each_named(
        names,
        lambda name: client.remove(name, force=force, volumes=volumes),
        fine=(NoSuchInstance,) if force else (),
    )


@click.command()
@NAMES
@click.option(
    "--condition",
    type=click.Choice(CONDITIONS),
    default="stopped",
    show_default=True,
    help="What to wait for.",
)
def wait(names: tuple[str, ...], condition: str) -> int:
    """Wait for instances to end, and print the exit code of each.

    With another condition than `stopped`, print the instance when it has come.
    """
    client = Client()

    def work(name: str) -> None:
        code = client.wait(name, condition)
        print(code if condition == "stopped" else name)

    return each(names, work)


@click.command()
@NAME
@click.argument("new", metavar="NEW_NAME")
def rename(name: str, new: str) -> None:
    """Give an instance another name."""
    Client().rename(name, new)


@click.command()
@NAMES
@click.option("--cpus", metavar="N", help="Number of vCPUs, such as 0.5.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory, such as 256m or 2g.")
@click.option("--disk", metavar="SIZE", help="The most that it can write; more than before.")
@click.option("--pids-limit", type=int, metavar="N", help="Number of processes and threads.")
@click.option("--restart", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped.")
@click.option("--ttl", metavar="TIME", help="Delete it at this age, such as 2h; 0: never.")
@click.option("--idle", metavar="TIME", help="Stop it after so long without use: 30m; 0: never.")
@click.option(
    "--budget", metavar="AMOUNT/PERIOD", help="Dollars that it may cost: 5/month; or none."
)
@click.option("--idle-action", metavar="ACTION", help="With it: stop, hibernate or terminate.")
@click.option("--backup", multiple=True, metavar="WHEN", help="on-stop,every=6h, or none.")
@click.option("--backup-keep", default="", metavar="RULES", help="last=24,daily=7,weekly=4.")
@click.option(
    "--egress", multiple=True, metavar="POLICY", help="none, internet, names, or default."
)
@click.option("--wake/--no-wake", default=None, help="A connection to a port starts it again.")
@NO_WAIT
def update(names: tuple[str, ...], no_wait: bool, **change: Any) -> int:
    """Change limits, restart policy, time to live, or what is done when it is idle. Running
    instances get their limits at once, VMs more CPUs and memory as well; what a VM cannot have
    before it starts again it gets then, and you are told."""
    client = Client()
    with Progress() as progress:
        more = {**change, "progress": progress, "wait": not no_wait}
        return each_named(names, lambda name: warn(client.update(name, **more)))


COMMANDS = {
    "create": create,
    "start": start,
    "attach": attach,
    "stop": stop,
    "restart": restart,
    "kill": kill,
    "pause": pause,
    "unpause": unpause,
    "hibernate": hibernate,
    "wake": wake,
    "rm": rm,
    "wait": wait,
    "rename": rename,
    "update": update,
}
