"""From what a tenant asked for and what the image says, to what the driver starts."""

from __future__ import annotations

from sublet.domain.errors import InvalidArgument
from sublet.domain.image import ImageConfig
from sublet.domain.instance import Instance
from sublet.domain.spec import check_working_dir
from sublet.drivers.container.containers import Plan
from sublet.drivers.container.spec import PATH, Process


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


def container_plan(
    instance: Instance, config: ImageConfig, *, address: str, uid_base: int, resolv_conf: str
) -> Plan:
    """What the container driver needs to know."""
    spec, host = instance.spec, hostname(instance)
    working_dir = spec.working_dir or config.working_dir or "/"
    check_working_dir(working_dir)
    process = Process(
        args=arguments(instance, config),
        env=environment(config, spec.env, host, tty=spec.tty),
        working_dir=working_dir,
        tty=spec.tty,
    )
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{address}\t{host}\n"
    return Plan(
        instance_id=instance.id,
        process=process,
        user=spec.user or config.user,
        hostname=host,
        uid_base=uid_base,
        size=spec.size,
        pids_limit=spec.pids_limit,
        mounts=spec.mounts,
        files={"resolv.conf": resolv_conf, "hosts": hosts, "hostname": f"{host}\n"},
        stdin=spec.stdin,
    )
