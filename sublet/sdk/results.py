"""What the SDK's calls send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sublet.domain.errors import InvalidArgument
from sublet.domain.units import check_memory, parse_cpus, parse_duration, parse_memory

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

Environment = Mapping[str, str] | Iterable[str]


def instance_spec(
    image: str,
    command: Sequence[str] | None = None,
    *,
    vm: bool = False,
    cold: bool = False,
    name: str = "",
    env: Environment = (),
    ports: Sequence[str] = (),
    volumes: Sequence[str] = (),
    mounts: Sequence[str] = (),
    tmpfs: Sequence[str] = (),
    cpus: float | str | None = None,
    memory: int | str | None = None,
    size: str = "",
    spot: bool | Mapping[str, Any] = False,
    disk: int | str | None = None,
    pids_limit: int = 2048,
    user: str = "",
    working_dir: str = "",
    hostname: str = "",
    entrypoint: Sequence[str] | None = None,
    stop_timeout: float | None = None,
    stop_signal: str = "",
    tty: bool = False,
    stdin: bool = False,
    remove: bool = False,
    labels: Mapping[str, str] | None = None,
    network: str = "",
    aliases: Sequence[str] = (),
    dns: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    hosts: Sequence[str] = (),
    restart: str = "",
    health: Mapping[str, Any] | None = None,
    init: bool = False,
    ulimits: Sequence[str] = (),
    sysctls: Mapping[str, str] | None = None,
    devices: Sequence[str] = (),
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    group_add: Sequence[str] = (),
    seccomp: str = "",
    read_only: bool = False,
    shm_size: int | str | None = None,
    log: Mapping[str, Any] | None = None,
    ttl: float | str | None = None,
    user_data: str = "",
    ssh_keys: Sequence[str] = (),
    idle: float | str | None = None,
    idle_action: str = "",
    budget: str = "",
    console_size: Sequence[int] = (),
    backup: Sequence[str] = (),
    backup_keep: str = "",
    wake: bool = False,
    lease: str = "",
    egress: str | Sequence[str] = (),
    host_ports: Sequence[int | str] = (),
    root: str = "",
) -> dict[str, Any]:
    """A request for an instance, as the API takes it: what is not given is left out.

    `vm` gives it a kernel of its own, which boots if `cold`. `env` is a mapping or NAME=VALUE
    texts, `ports` as `-p` (8080:80), `volumes` as `-v` (/host:/inside:ro), `mounts` as `--mount`,
    `size` as 2x4 or a name of `sublet sizes`, for what of `cpus` and `memory` is not given, `spot`
    True or the keys of Spot: max_price, on_reclaim, persistent, notice_signal, notice_exec,
    `memory`, `disk` and `shm_size` in bytes or as 256m, `ttl` in seconds or as 30m, `restart`,
    `ulimits` and `devices` as their flags, `user_data` a text, `ssh_keys` public keys,
    `health` and `log` with the keys of Healthcheck and LogConfig; `idle` as `ttl`: after so
    long without use, `idle_action` (stop, hibernate or terminate) is taken; `wake`: a connection
    to a published port starts it again; `lease`: the id of one, with whose end it is deleted;
    `egress` as its flag: whom it may connect to: none, internet, or names and addresses;
    `host_ports`: ports of this host's loopback, at its own;
    `budget` as 5/month; `backup` as its flag: texts such as
    on-notice, on-stop, every=6h, and `backup_keep` as last=24,daily=7; `console_size` are rows and
    columns; `root` host: this host's root file system in place of the image's (scratch has none).
    Raises InvalidArgument.
    """
    given: dict[str, Any] = {
        "command": list(command or ()),
        "isolation": "vm" if vm else "",
        "size_name": size,
        "market": "spot" if spot else "",
        "spot": {} if isinstance(spot, bool) else dict(spot),
        "cold": cold,
        "name": name,
        "env": list(environment(env)),
        "user": user,
        "working_dir": working_dir,
        "hostname": hostname,
        "stop_signal": stop_signal,
        "tty": tty,
        "stdin": stdin,
        "remove": remove,
        "labels": dict(labels or {}),
        "network": network,
        "aliases": list(aliases),
        "dns": list(dns),
        "dns_search": list(dns_search),
        "hosts": list(hosts),
        "init": init,
        "sysctls": dict(sysctls or {}),
        "cap_add": list(cap_add),
        "cap_drop": list(cap_drop),
        "group_add": list(group_add),
        "seccomp": seccomp,
        "read_only": read_only,
        "log": dict(log or {}),
        "user_data": user_data,
        "ssh_keys": list(ssh_keys),
        "console_size": list(console_size),
        "wake": wake,
        "lease": lease,
        "root": root,
    }
    spec = {"image": image, **{key: value for key, value in given.items() if value}}
    optional: dict[str, Any] = {
        "stop_timeout": stop_timeout,
        "health": None if health is None else dict(health),
    }
    optional["entrypoint"] = None if entrypoint is None else list(entrypoint)
    spec.update({key: value for key, value in optional.items() if value is not None})
    if pids_limit != 2048:
        spec["pids_limit"] = pids_limit
    if cpus is not None:
        spec["cpus"] = parse_cpus(str(cpus))
    if memory is not None:
        spec["memory"] = check_memory(parse_memory(str(memory)))
    if host_ports:
        spec["host_ports"] = [_port(port) for port in host_ports]
    for key, amount in (("disk", disk), ("shm_size", shm_size)):
        if amount is not None:
            spec[key] = parse_memory(str(amount))
    if egress:
        from sublet.sdk._parsed import egress_of

        if (policy := egress_of(egress)) is not None:
            spec["egress"] = policy
    if ttl is not None:
        spec["ttl"] = parse_duration(str(ttl))
    if idle is not None or idle_action:
        spec["idle"] = idle_rule(idle, idle_action)
    if backup or backup_keep:
        from sublet.sdk._parsed import plan_of

        spec["backup"] = plan_of(backup, backup_keep)
    if budget:
        from sublet.sdk._parsed import budget_of

        spec["budget"] = budget_of(budget)
    if ports or volumes or mounts or tmpfs or restart or ulimits or devices:
        from sublet.sdk._parsed import parsed

        spec |= parsed(
            ports=ports,
            volumes=volumes,
            mounts=mounts,
            tmpfs=tmpfs,
            restart=restart,
            ulimits=ulimits,
            devices=devices,
        )
    return spec


def idle_rule(idle: float | str | None, action: str) -> dict[str, Any]:
    """A rule for idleness, as the API takes it. Raises InvalidArgument."""
    if idle is None:
        raise InvalidArgument("There is an --idle-action, but no --idle.", hint="Add --idle 30m.")
    return {"after": parse_duration(str(idle)), "action": action or "stop"}


def _port(port: int | str) -> int:
    if isinstance(port, str) and not port.isdecimal():
        raise InvalidArgument(f"'{port}' is not a port.", hint="Write --host-port 3000.")
    return int(port)


def exec_spec(
    command: Sequence[str],
    *,
    env: Environment = (),
    user: str = "",
    working_dir: str = "",
    tty: bool = False,
    console_size: Sequence[int] = (),
    timeout: float = 0.0,
) -> dict[str, Any]:
    """A request for a further process, as the API takes it. After `timeout` seconds, unless that
    is 0, it is killed with all that it has started."""
    size = {"console_size": list(console_size)} if console_size else {}
    limit = {"timeout": timeout} if timeout else {}
    return {
        **size,
        **limit,
        "command": list(command),
        "env": list(environment(env)),
        "user": user,
        "working_dir": working_dir,
        "tty": tty,
    }


def environment(env: Environment) -> tuple[str, ...]:
    """NAME=VALUE texts."""
    if isinstance(env, Mapping):
        return tuple(f"{name}={value}" for name, value in env.items())
    return tuple(env)
