"""From what a tenant asked for and what the image says, to what the driver starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sublet.domain import resolving
from sublet.domain.errors import InvalidArgument
from sublet.domain.image import Image, ImageConfig, refuse_disk
from sublet.domain.instance import Instance
from sublet.domain.mounts import Mount, MountType
from sublet.domain.networks import Mode
from sublet.domain.spec import InstanceSpec, Isolation, check_working_dir
from sublet.domain.units import MIB
from sublet.drivers.container.containers import Plan
from sublet.drivers.container.spec import PATH, Options, Process

_HIDING = 16 * MIB
"""Bytes that may be written where a directory of the host is hidden."""


def check_image(spec: InstanceSpec, image: Image) -> None:
    """Raises ImageNeedsVM where a container is asked for of what only a VM can run."""
    if spec.isolation is Isolation.CONTAINER:
        refuse_disk(image, spec.image)


def arguments(instance: Instance, config: ImageConfig) -> tuple[str, ...]:
    """Entrypoint and command, as Docker combines them: an entrypoint of the tenant's own drops
    the image's command. Raises InvalidArgument where there is nothing to run."""
    spec = instance.spec
    entrypoint = config.entrypoint if spec.entrypoint is None else spec.entrypoint
    command = spec.command
    if not command and spec.entrypoint is None:
        command = config.cmd
    if not entrypoint + command:
        raise InvalidArgument(
            f"The image {instance.image} names no command to run.",
            hint="Give one after the image: sublet run IMAGE COMMAND.",
        )
    return entrypoint + command


def environment(
    config: ImageConfig, extra: tuple[str, ...], hostname: str, *, tty: bool
) -> tuple[str, ...]:
    """The image's variables, then the tenant's; PATH and HOSTNAME always, TERM on a terminal."""
    variables = {"PATH": PATH.removeprefix("PATH="), "HOSTNAME": hostname}
    if tty:
        variables["TERM"] = "xterm"
    for entry in (*config.env, *extra):
        name, _, value = entry.partition("=")
        variables[name] = value
    return tuple(f"{name}={value}" for name, value in variables.items())


def hostname(instance: Instance) -> str:
    return instance.spec.hostname or instance.id


def process(
    instance: Instance,
    config: ImageConfig,
    args: tuple[str, ...],
    *,
    env: tuple[str, ...] = (),
    working_dir: str = "",
    tty: bool = False,
    console_size: tuple[int, int] = (0, 0),
) -> Process:
    """A process of the instance, its first or a further one, with the instance's rights. Raises
    InvalidArgument for a working directory that none may have."""
    spec = instance.spec
    directory = working_dir or spec.working_dir or config.working_dir or "/"
    check_working_dir(directory)
    return Process(
        args=args,
        env=environment(config, spec.env + env, hostname(instance), tty=tty),
        working_dir=directory,
        tty=tty,
        console_size=console_size,
        join=spec.group_add,
        cap_add=spec.cap_add,
        cap_drop=spec.cap_drop,
        ulimits=spec.ulimits,
    )


def hidden(places: Iterable[Path]) -> tuple[Mount, ...]:
    """Empty memory over directories of the host, in which an instance may write but finds
    nothing; those that lie in others among them go with these."""
    found = sorted({place.resolve() for place in places}, key=lambda place: len(place.parts))
    outer = [p for n, p in enumerate(found) if not any(p.is_relative_to(o) for o in found[:n])]
    return tuple(
        Mount("", str(place), type=MountType.TMPFS, size=_HIDING, mode="755") for place in outer
    )


def options(instance: Instance) -> Options:
    """What the tenant changed about the container."""
    spec = instance.spec
    return Options(
        seccomp=spec.seccomp,
        sysctls=spec.sysctls,
        devices=spec.devices,
        read_only=spec.read_only,
        shm_size=spec.shm_size,
        init=spec.init,
    )


def container_plan(
    instance: Instance,
    config: ImageConfig,
    *,
    address: str,
    gateway: str,
    uid_base: int,
    resolv_conf: str,
    joined: str = "",
) -> Plan:
    """What the container driver needs to know; the host answers at `gateway`. `joined` is the
    instance whose network this one joins."""
    spec, host = instance.spec, hostname(instance)
    args = arguments(instance, config)
    files = {
        "resolv.conf": resolving.resolv_conf(resolv_conf, spec.dns, spec.dns_search),
        "hosts": resolving.hosts_file(host, address, gateway, spec.hosts),
        "hostname": f"{host}\n",
    }
    return Plan(
        instance_id=instance.id,
        process=process(instance, config, args, tty=spec.tty, console_size=spec.console_size),
        user=spec.user or config.user,
        hostname=host,
        uid_base=uid_base,
        size=spec.size,
        pids_limit=spec.pids_limit,
        mounts=spec.mounts,
        files=files,
        stdin=spec.stdin,
        options=options(instance),
        log=spec.log,
        network=Mode.of(spec.network),
        joined=joined,
    )
