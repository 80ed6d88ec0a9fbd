"""`sublet run` and `sublet exec`: the hot path, which imports neither Click nor rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from sublet.cli.output import Progress
from sublet.domain.errors import InvalidArgument
from sublet.domain.units import parse_duration
from sublet.sdk import Client, _marks
from sublet.sdk.results import exec_spec, instance_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

    Options = dict[str, Any]


RARE = frozenset(
    "stop_signal label label_file mount tmpfs disk read_only shm_size network network_alias dns "
    "dns_search add_host host_port restart health_cmd health_interval health_timeout "
    "health_retries health_start_period health_start_interval no_healthcheck init ulimit sysctl "
    "device cap_add "
    "cap_drop group_add security_opt log_driver log_opt ttl idle idle_action user_data ssh_key "
    "cold size spot max_price on_reclaim persistent notice_signal notice_exec budget backup "
    "backup_keep wake egress".split()
)
"""Flags whose values options.py reads."""

LAUNCH = frozenset({"wait", "pull", "cidfile"})
"""Flags of which launch.py knows what they mean."""


BOOT_NOTE = 1.5
"""Seconds after which the start of a VM is taken for a boot, and said to be one."""


def run(options: Options, args: list[str]) -> int:
    """Run an instance of an image; the exit code."""
    spec = request(options, args)
    _marks.mark("imports and flags")
    if LAUNCH.intersection(options) and any(map(options.get, LAUNCH)):
        from sublet.cli.launch import run_with

        return run_with(options, spec)
    client, wait = Client(), not options.get("no_wait")
    with Progress() as progress:
        if options.get("vm"):
            progress.later(BOOT_NOTE, "Booting; later VMs of this image and size resume instead")
        if options.get("detach"):
            started = client.launch(spec, progress, wait=wait)
            warn(started)
            print(started["id"])
            return 0
        session, started = client.foreground(spec, progress, wait=wait, confirm=True)
    warn(started)
    return relay(session, options)


def warn(started: dict[str, Any]) -> None:
    """Say on standard error what the instance was asked to have and does not get."""
    for text in started.get("warnings", ()):
        print(f"sublet: warning: {text}", file=sys.stderr)


def execute(options: Options, args: list[str]) -> int:
    """Run a command in an instance; its exit code."""
    tty = _terminal(options)
    name, command = args[0], args[1:]
    spec = exec_spec(
        command,
        env=_env_files(options) + _environment(options),
        user=options.get("user") or "",
        working_dir=options.get("workdir") or "",
        tty=tty,
        console_size=console_size(tty),
    )
    _marks.mark("imports and flags")
    return relay(Client().exec_session(name, spec), options)


def relay(session: Any, options: Options, *, ends_input: bool = True) -> int:
    """Carry the streams of a process until it ends; its exit code."""
    from sublet.cli import foreground

    return foreground.relay(
        session,
        interactive=bool(options.get("interactive")),
        tty=bool(options.get("tty")),
        ends_input=ends_input,
        detach_keys=options.get("detach_keys") or "",
        sig_proxy=options.get("sig_proxy") != "false",
    )


def request(options: Options, args: list[str]) -> dict[str, Any]:
    """What the flags and arguments of `run` or `create` ask for."""
    image, command = image_of(args[0]), args[1:]
    tty = bool(options.get("tty")) if options.get("detach") else _terminal(options)
    entrypoint = options.get("entrypoint")
    stop_timeout = options.get("stop_timeout")
    return instance_spec(
        image,
        command,
        vm=bool(options.get("vm")),
        name=options.get("name") or "",
        env=_env_files(options) + _environment(options),
        ports=options.get("publish") or (),
        volumes=[_volume(text) for text in options.get("volume") or ()],
        cpus=options.get("cpus"),
        memory=options.get("memory"),
        pids_limit=_count(options.get("pids_limit") or "2048"),
        user=options.get("user") or "",
        working_dir=options.get("workdir") or "",
        hostname=options.get("hostname") or "",
        entrypoint=None if entrypoint is None else ([entrypoint] if entrypoint else []),
        stop_timeout=parse_duration(stop_timeout) if stop_timeout else None,
        tty=tty,
        console_size=console_size(tty),
        stdin=bool(options.get("interactive")),
        remove=bool(options.get("rm")),
        **(_rare(options) if RARE.intersection(options) else {}),
    )


def _rare(options: Options) -> Options:
    """What the flags that few use ask for; their parser is imported only then."""
    from sublet.cli.options import rare

    return rare(options)


def image_of(text: str) -> str:
    """A path to a file becomes absolute: the daemon has another working directory."""
    is_path = text.startswith(("./", "../", "/")) or (
        text.endswith(".sif") and os.path.isfile(text)
    )
    return os.path.abspath(text) if is_path else text


def _volume(text: str) -> str:
    source, colon, rest = text.partition(":")
    return f"{os.path.abspath(source)}:{rest}" if colon and source.startswith(".") else text


def _environment(options: Options) -> list[str]:
    return completed(options.get("env") or ())


def completed(env: Iterable[str]) -> list[str]:
    """NAME=VALUE as given; NAME alone with this process's value, or not at all."""
    found = []
    for entry in env:
        if "=" in entry or not entry:  # the empty name is refused with the others
            found.append(entry)
        elif entry in os.environ:
            found.append(f"{entry}={os.environ[entry]}")
    return found


def _env_files(options: Options) -> list[str]:
    if not options.get("env_file"):
        return []
    from sublet.cli.options import env_files

    return env_files(options["env_file"])


def _terminal(options: Options) -> bool:
    tty = bool(options.get("tty"))
    if tty and options.get("interactive") and not (sys.stdin and sys.stdin.isatty()):
        raise InvalidArgument(
            "Standard input is not a terminal.", hint="Leave out -t, or run this in a terminal."
        )
    return tty


def console_size(tty: bool) -> tuple[int, ...]:
    """Of this terminal, so that the process finds it so; a change later on is a signal."""
    if tty and sys.stdin and sys.stdin.isatty():
        size = os.get_terminal_size(sys.stdin.fileno())
        return size.lines, size.columns
    return ()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise InvalidArgument(
            f"'{text}' is not a number of processes.",
            hint="Write --pids-limit 100. There is always a limit, so that none takes the host's.",
        )
    return int(text)
