"""What users of other engines reach for and do not find here: what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from sublet.domain.errors import InvalidArgument

_JSON = "Use --json: `sublet {verb} --json | jq -r '.[].name'`; -q prints ids alone."
_NAMESPACE = "Every instance has namespaces of its own, always."
_CPU = "Write --cpus 0.5: it is a limit as well as a promise."
_MEMORY = "Write -m 512m: it is the limit. Instances do not swap."
_DISK_RATE = "The host shares its disks' speed out. --disk limits how much is written."
_MANY = "Images are for this host's architecture alone."

LAUNCH: Mapping[str, str] = {
    "--privileged": "Give what the program needs: --cap-add NAME, --device /dev/X, "
    "--security-opt seccomp=FILE. See docs/options.md.",
    "--platform": _MANY,
    "--publish-all": "Name each port: -p 80 publishes it where the host chooses; "
    "`sublet port` tells where.",
    "--expose": "Leave it out: instances of one network reach each other's ports. "
    "-p publishes one.",
    "--ip": "Create the instance, then `sublet network connect --ip ADDRESS NETWORK INSTANCE`; "
    "others find it by its name.",
    "--ip6": "There is no IPv6 yet.",
    "--domainname": "Write it into the host name: --hostname web.example.org.",
    "--mac-address": "An instance's MAC address is made of its IPv4 address.",
    "--link": "Put both on one network: they find each other by name, or --network-alias.",
    "--volumes-from": "Mount the same volumes by their names: -v data:/srv in both.",
    "--cpu-shares": _CPU,
    "--cpu-quota": _CPU,
    "--cpu-period": _CPU,
    "--cpuset-cpus": _CPU,
    "--memory-swap": _MEMORY,
    "--memory-swappiness": _MEMORY,
    "--memory-reservation": _MEMORY,
    "--kernel-memory": _MEMORY,
    "--oom-kill-disable": _MEMORY,
    "--oom-score-adj": _MEMORY,
    "--gpus": "Pass the device on: --device /dev/dri, or /dev/nvidia0 and its kin.",
    "--pid": _NAMESPACE,
    "--ipc": _NAMESPACE,
    "--uts": _NAMESPACE,
    "--userns": _NAMESPACE,
    "--cgroupns": _NAMESPACE,
    "--cgroup-parent": _NAMESPACE,
    "--attach": "Without -d the output is shown; -i passes the input on.",
    "--storage-opt": "Write --disk 10g.",
    "--runtime": "Every instance is run by the host's crun; `sublet host` tells.",
    "--isolation": "Write --vm for a kernel of its own; without it, it is a container.",
    "--blkio-weight": _DISK_RATE,
    "--device-read-bps": _DISK_RATE,
    "--device-write-bps": _DISK_RATE,
    "--dns-option": "Write --dns and --dns-search.",
    "--annotation": "Write --label KEY=VALUE.",
    "--timeout": "Write --ttl 2h, which deletes it at that age, or run it under timeout(1).",
    "--replace": "`sublet rm -f NAME` first: it succeeds where there is none.",
    "--pod": "Put instances on one network, or write --network container:NAME.",
}
"""Flags of `run` and `create`."""

_OF: Mapping[str, Mapping[str, str]] = {
    "run": LAUNCH,
    "create": LAUNCH,
    "exec": {
        "--privileged": "A process gets no more than its instance has: --cap-add at `sublet run`.",
        "--detach": "Let the instance's shell do it: "
        "`sublet exec NAME sh -c 'COMMAND >/dev/null 2>&1 &'`.",
    },
    "build": {
        "--platform": _MANY,
        "--pull": "`sublet pull` the base image first.",
        "--label": "Write LABEL into the Containerfile.",
        "--secret": "A build has no secrets as yet: mount them when it runs.",
        "--progress": "Lines are written as they come; -q leaves them out.",
        "--iidfile": "The digest is printed: `sublet build DIR > FILE`.",
    },
    "inspect": {
        "--format": "Take what you need of the JSON: `sublet inspect NAME | jq -r .state`."
    },
    "stop": {"--signal": "`sublet kill -s SIGNAL`; or --stop-signal at `sublet run`."},
}

_SHORT = {
    ("run", "-P"): "--publish-all",
    ("create", "-P"): "--publish-all",
    ("run", "-c"): "--cpu-shares",
    ("create", "-c"): "--cpu-shares",
    ("run", "-a"): "--attach",
    ("create", "-a"): "--attach",
    ("exec", "-d"): "--detach",
    ("inspect", "-f"): "--format",
    ("stop", "-s"): "--signal",
}

VERBS: Mapping[str, str] = {
    "save": "An image is one file: `sublet pack IMAGE -o FILE.sif`.",
    "load": "`sublet import FILE.sif` takes in a packed image, `sublet pack DIR` an OCI layout.",
    "info": "`sublet host` tells about this machine.",
    "search": "Registries are searched on their own pages; `sublet pull` fetches.",
    "compose": "There are no compose files: `sublet network create`, then `sublet run` for each.",
    "help": "Write `sublet --help`, or `sublet run --help`.",
    "buildx": "Write `sublet build`.",
}
"""Commands."""


def verb(name: str) -> InvalidArgument | None:
    """What to say of a command that other engines have."""
    hint = VERBS.get(name)
    return InvalidArgument(f"There is no command '{name}'.", hint=hint) if hint else None


def flag(args: list[str], name: str) -> InvalidArgument | None:
    """What to say of a flag of the command line `args` that other engines have."""
    words = args[1:] if args[:1] in (["instance"], ["container"], ["image"]) else args
    command = words[0] if words else ""
    hint = _OF.get(command, {}).get(_SHORT.get((command, name), name))
    if hint is None and name == "--format":
        hint = _JSON.format(verb=" ".join([*args[: len(args) - len(words)], command]))
    return InvalidArgument(f"There is no flag {name} here.", hint=hint) if hint else None
