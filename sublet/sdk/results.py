"""What the SDK's calls give back, and what they send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sublet.domain.instance import ExecSpec, InstanceSpec
from sublet.domain.mounts import parse_mount
from sublet.domain.ports import parse_ports
from sublet.domain.size import check_memory
from sublet.domain.units import parse_cpus, parse_memory

Environment = Mapping[str, str] | Iterable[str]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a process ended: its exit code, and what it wrote, as bytes and as text."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_bytes.decode(errors="replace")


def instance_spec(
    image: str,
    command: Sequence[str] | None = None,
    *,
    name: str = "",
    env: Environment = (),
    ports: Sequence[str] = (),
    volumes: Sequence[str] = (),
    cpus: float | str | None = None,
    memory: int | str | None = None,
    pids_limit: int = 2048,
    user: str = "",
    working_dir: str = "",
    hostname: str = "",
    entrypoint: Sequence[str] | None = None,
    stop_timeout: float | None = None,
    tty: bool = False,
    stdin: bool = False,
    remove: bool = False,
) -> dict[str, Any]:
    """A request for an instance, as the API takes it.

    `env` is a mapping or NAME=VALUE texts, `ports` as `-p` (8080:80), `volumes` as
    `-v` (/host:/inside:ro), `memory` in bytes or as 256m. Raises InvalidArgument.
    """
    spec = InstanceSpec(
        image=image,
        command=tuple(command or ()),
        name=name,
        entrypoint=None if entrypoint is None else tuple(entrypoint),
        env=environment(env),
        user=user,
        working_dir=working_dir,
        hostname=hostname,
        ports=tuple(port for text in ports for port in parse_ports(text)),
        mounts=tuple(parse_mount(text) for text in volumes),
        cpus=0.0 if cpus is None else parse_cpus(str(cpus)),
        memory=0 if memory is None else check_memory(parse_memory(str(memory))),
        pids_limit=pids_limit,
        stop_timeout=stop_timeout,
        tty=tty,
        stdin=stdin,
        remove=remove,
    )
    return asdict(spec)


def exec_spec(
    command: Sequence[str],
    *,
    env: Environment = (),
    user: str = "",
    working_dir: str = "",
    tty: bool = False,
) -> dict[str, Any]:
    """A request for a further process, as the API takes it."""
    spec = ExecSpec(tuple(command), environment(env), user, working_dir, tty)
    return asdict(spec)


def environment(env: Environment) -> tuple[str, ...]:
    """NAME=VALUE texts."""
    if isinstance(env, Mapping):
        return tuple(f"{name}={value}" for name, value in env.items())
    return tuple(env)
