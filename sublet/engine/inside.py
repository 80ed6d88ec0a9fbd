"""What is done inside an instance: further processes, its output."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sublet.domain.errors import WrongState
from sublet.domain.image import ImageConfig
from sublet.domain.instance import LIVE, Instance
from sublet.domain.spec import ExecSpec, check_exec
from sublet.drivers.container import logs
from sublet.drivers.container.execution import Execution
from sublet.drivers.container.execution import execute as start_process
from sublet.drivers.container.streams import Streams
from sublet.engine import plan
from sublet.engine.lifecycle import Lifecycle


async def execute(lifecycle: Lifecycle, instance: Instance, spec: ExecSpec) -> Execution:
    """Start a further process; `env` adds to the instance's own."""
    check_exec(spec)
    parts = lifecycle.parts
    image = parts.image_store.get(instance.digest)
    config = image.config if image else ImageConfig()
    process = plan.process(
        instance,
        config,
        spec.command,
        env=spec.env,
        working_dir=spec.working_dir,
        tty=spec.tty,
    )
    user = spec.user or instance.spec.user or config.user
    base = parts.network.uid_base(instance.slot)
    return await start_process(parts.containers, instance.id, process, user, base)


def attach(lifecycle: Lifecycle, instance: Instance) -> Streams:
    """The first process's streams, from now on; others may have them too."""
    try:
        return lifecycle.parts.containers.attach(instance.id)
    except OSError as error:
        raise WrongState(f"{instance.name} has just ended.") from error


def read_logs(
    lifecycle: Lifecycle, instance: Instance, *, follow: bool
) -> AsyncIterator[logs.Entry]:
    """What the instance wrote, and with `follow` what it goes on to write."""
    parts = lifecycle.parts

    def following() -> bool:
        current = parts.store.get(instance.id) if follow else None
        return current is not None and current.state in LIVE

    return logs.read(parts.containers.places(instance.id).log, following)
