"""The flags of `run` and `exec`, said once: for Click's help, and for a parser that costs
nothing to import."""

from __future__ import annotations


class Flag:
    """`kind`: `switch` takes no value, `text` one, `list` may be given again."""

    __slots__ = ("help", "kind", "metavar", "names")

    def __init__(self, names: tuple[str, ...], kind: str, help: str, metavar: str = "") -> None:
        self.names = names
        self.kind = kind
        self.help = help
        self.metavar = metavar

    @property
    def key(self) -> str:
        """The name of its value: the long name in Python's spelling."""
        return self.names[-1].lstrip("-").replace("-", "_")


_PROCESS = (
    Flag(("-i", "--interactive"), "switch", "Pass standard input on."),
    Flag(("-t", "--tty"), "switch", "Give the process a terminal."),
    Flag(("-e", "--env"), "list", "Set a variable; NAME alone takes this shell's.", "NAME[=VALUE]"),
    Flag(("-w", "--workdir"), "text", "Working directory inside.", "DIR"),
    Flag(("-u", "--user"), "text", "Run as this user of the image.", "USER[:GROUP]"),
)

_FOREGROUND = (
    Flag(("--detach-keys",), "text", "Keys that detach; ctrl-p,ctrl-q without it.", "KEYS"),
    Flag(("--sig-proxy",), "text", "true or false: pass signals on.", "BOOL"),
)

_ENV_FILE = Flag(("--env-file",), "list", "Read variables, one a line.", "FILE")

EXEC = (*_PROCESS, _ENV_FILE, _FOREGROUND[0])

RUN = (
    Flag(("--rm",), "switch", "Delete the instance when it ends."),
    Flag(("-d", "--detach"), "switch", "Run in the background and print the id."),
    Flag(("--vm",), "switch", "Give it a kernel of its own."),
    Flag(("--cold",), "switch", "With --vm: boot it, where it could go on from a template."),
    Flag(("--user-data",), "text", "With --vm: what cloud-init is to do.", "FILE"),
    Flag(("--ssh-key",), "list", "With --vm: a public key that cloud-init lets in.", "FILE"),
    *_PROCESS,
    Flag(("--name",), "text", "Name of the instance.", "NAME"),
    Flag(("-p", "--publish"), "list", "Publish a port.", "[[IP:]HOSTPORT:]PORT[/udp]"),
    Flag(("-v", "--volume"), "list", "Mount a host path or a volume.", "[HOST|NAME:]PATH[:ro|cow]"),
    Flag(("--size",), "text", "vCPUs x GiB, such as 2x4, or a name of `sizes`.", "SIZE"),
    Flag(("--cpus",), "text", "Number of vCPUs, such as 0.5.", "N"),
    Flag(("-m", "--memory"), "text", "Memory, such as 256m or 2g.", "SIZE"),
    Flag(("--pids-limit",), "text", "Number of processes and threads.", "N"),
    Flag(("--entrypoint",), "text", "Replace the image's entrypoint.", "PROGRAM"),
    Flag(("-h", "--hostname"), "text", "Host name inside.", "NAME"),
    Flag(("--stop-timeout",), "text", "Time to end after `stop`, such as 10s.", "TIME"),
    Flag(("--stop-signal",), "text", "Signal that `stop` sends.", "SIGNAL"),
    Flag(("-l", "--label"), "list", "Set a label.", "KEY[=VALUE]"),
    Flag(("--label-file",), "list", "Read labels, one a line.", "FILE"),
    _ENV_FILE,
    Flag(("--mount",), "list", "Mount a host directory, a volume or memory.", "type=…,target=…"),
    Flag(("--tmpfs",), "list", "Mount memory.", "PATH[:size=64m,mode=700]"),
    Flag(("--disk",), "text", "The most that it can write, such as 2g.", "SIZE"),
    Flag(("--read-only",), "switch", "Its root file system cannot be written to."),
    Flag(("--shm-size",), "text", "Size of /dev/shm.", "SIZE"),
    Flag(("--net", "--network"), "text", "Network, none, host or container:ID.", "NAME"),
    Flag(
        ("--egress",),
        "list",
        "Whom it may connect to: none, internet, or names and addresses.",
        "POLICY",
    ),
    Flag(("--network-alias",), "list", "A further name on its network.", "NAME"),
    Flag(("--dns",), "list", "Ask this resolver.", "ADDRESS"),
    Flag(("--dns-search",), "list", "Search names in this domain.", "DOMAIN"),
    Flag(("--add-host",), "list", "Add a line to /etc/hosts.", "NAME:ADDRESS"),
    Flag(("--host-port",), "list", "Show it a port of this host's 127.0.0.1.", "PORT"),
    Flag(("--restart",), "text", "no, on-failure[:N], always or unless-stopped.", "POLICY"),
    Flag(("--health-cmd",), "text", "Command that tells whether it is healthy.", "COMMAND"),
    Flag(("--health-interval",), "text", "Time between checks.", "TIME"),
    Flag(("--health-timeout",), "text", "Time that a check may take.", "TIME"),
    Flag(("--health-retries",), "text", "Failures in a row that make it unhealthy.", "N"),
    Flag(("--health-start-period",), "text", "Time in which failures do not count.", "TIME"),
    Flag(("--health-start-interval",), "text", "Time between checks until it is healthy.", "TIME"),
    Flag(("--no-healthcheck",), "switch", "Leave the image's check out."),
    Flag(("--init",), "switch", "Run a small init that reaps and passes on signals."),
    Flag(("--ulimit",), "list", "Set a resource limit.", "NAME=SOFT[:HARD]"),
    Flag(("--sysctl",), "list", "Set a sysctl of its own namespaces.", "NAME=VALUE"),
    Flag(("--device",), "list", "Pass a device of the host on.", "/dev/X[:/dev/Y[:rwm]]"),
    Flag(("--cap-add",), "list", "Add a capability.", "NAME"),
    Flag(("--cap-drop",), "list", "Take a capability away, or ALL.", "NAME"),
    Flag(("--group-add",), "list", "Join a further group.", "GROUP"),
    Flag(("--security-opt",), "list", "seccomp=FILE, =unconfined or =user-namespaces.", "OPTION"),
    Flag(("--log-driver",), "text", "file or none.", "DRIVER"),
    Flag(("--log-opt",), "list", "max-size=10m, max-file=3.", "KEY=VALUE"),
    Flag(("--ttl",), "text", "Delete it at this age, such as 2h.", "TIME"),
    Flag(("--backup",), "list", "Back it up: on-notice,on-stop,every=6h.", "WHEN"),
    Flag(("--backup-keep",), "text", "Keep of these: last=24,daily=7,weekly=4.", "RULES"),
    Flag(("--idle",), "text", "Stop it after so long without use, such as 30m.", "TIME"),
    Flag(
        ("--idle-action",),
        "text",
        "With --idle: stop (as without it), hibernate or terminate.",
        "ACTION",
    ),
    Flag(("--spot",), "switch", "Sell it at the spot price; it may be reclaimed."),
    Flag(("--max-price",), "text", "With --spot: the most to pay, in dollars an hour.", "DOLLARS"),
    Flag(
        ("--on-reclaim",),
        "text",
        "With --spot: terminate (as without it), stop or hibernate.",
        "ACTION",
    ),
    Flag(("--persistent",), "switch", "With --spot: start it again when there is room."),
    Flag(("--notice-signal",), "text", "With --spot: signal to send at the notice.", "SIGNAL"),
    Flag(("--notice-exec",), "text", "With --spot: command to run in it then.", "COMMAND"),
    Flag(("--no-wait",), "switch", "Fail if spot instances would have to make room."),
    Flag(
        ("--budget",),
        "text",
        "Dollars that it may cost a day, week or month: 5/month.",
        "AMOUNT/PERIOD",
    ),
    Flag(("--wake",), "switch", "A connection to a published port starts it again."),
    Flag(("--wait",), "switch", "With -d: return when it is healthy."),
    Flag(("--pull",), "text", "missing (as without it), always or never.", "WHEN"),
    Flag(("--cidfile",), "text", "Write the id to this file.", "FILE"),
    *_FOREGROUND,
)

LOCAL = frozenset({"detach", "wait", "pull", "cidfile", "detach_keys", "sig_proxy", "no_wait"})
"""Flags of `run` that are no part of the request for an instance."""

CREATE = tuple(f for f in RUN if f.key not in LOCAL or f.key in ("pull", "cidfile"))

Values = dict[str, "str | bool | list[str]"]


def parse(flags: tuple[Flag, ...], args: list[str]) -> tuple[Values, list[str]] | None:
    """The values of the flags before the first argument, and the arguments.

    None for whatever is not plainly right: Click says then what is wrong with it.
    """
    by_name = {name: flag for flag in flags for name in flag.names}
    values: Values = {}
    rest = list(args)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if not _take(word, rest, by_name, values):
            return None
    return values, rest


def _take(word: str, rest: list[str], by_name: dict[str, Flag], values: Values) -> bool:
    """Take one word of flags, and its value from `rest` where it has none attached."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        flag = by_name.get(name)
        if flag is None or (equals and flag.kind == "switch"):
            return False
        return _set(flag, value if equals else None, rest, values)
    letters = word[1:]
    while letters:
        flag = by_name.get(f"-{letters[0]}")
        if flag is None:
            return False
        letters = letters[1:]
        if flag.kind != "switch":
            return _set(flag, letters or None, rest, values)
        values[flag.key] = True
    return True


def _set(flag: Flag, value: str | None, rest: list[str], values: Values) -> bool:
    if flag.kind == "switch":
        values[flag.key] = True
        return True
    if value is None:
        if not rest:
            return False
        value = rest.pop(0)
    if flag.kind == "list":
        found = values.setdefault(flag.key, [])
        assert isinstance(found, list)
        found.append(value)
    else:
        values[flag.key] = value
    return True
