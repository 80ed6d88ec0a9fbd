"""What is done inside an instance: further processes, its output."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sublet.domain.errors import TimeoutExceeded, WrongState
from sublet.domain.image import ImageConfig
from sublet.domain.instance import Instance
from sublet.domain.spec import ExecSpec, check_exec
from sublet.drivers import listing
from sublet.drivers.container.execution import execute as start_process
from sublet.drivers.container.rootfs import Root
from sublet.drivers.container.streams import Streams
from sublet.drivers.namespaces import ID_COUNT
from sublet.drivers.runner import Execution
from sublet.drivers.vm import listings
from sublet.engine import access, guests, plan
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
        console_size=spec.console_size,
    )
    user = spec.user or instance.spec.user or config.user
    if instance.spec.vm:
        return await parts.machines.execute(instance.id, guests.command(process, user))
    base = parts.network.uid_base(instance.slot)
    return await start_process(parts.containers, instance.id, process, user, base)


@contextlib.asynccontextmanager
async def within(execution: Execution, seconds: float) -> AsyncIterator[None]:
    """What the block waits for takes at most so many seconds (0: any); then the process is killed
    with all that it has started. Raises TimeoutExceeded."""
    try:
        async with asyncio.timeout(seconds or None) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        await execution.kill()
        raise TimeoutExceeded(f"The command was killed after {seconds:g} s.") from error


def attach(lifecycle: Lifecycle, instance: Instance) -> Streams:
    """The first process's streams, from now on; others may have them too."""
    try:
        return lifecycle.parts.runner(instance).attach(instance.id)
    except OSError as error:
        raise WrongState(f"{instance.name} has just ended.") from error


async def processes(lifecycle: Lifecycle, instance: Instance) -> list[listing.Process]:
    """The processes of a running instance, the first one first; users by the names that its
    own /etc/passwd gives. A VM's kernel lists its own."""
    parts = lifecycle.parts
    if instance.spec.vm:
        return await listings.processes(access.guest(lifecycle, instance))
    base = parts.network.uid_base(instance.slot)
    with Root(parts.containers.places(instance.id).rootfs, base) as root:
        names = listing.user_names(root.read_text("etc/passwd"))

    def user(uid: int) -> str:
        inside = uid - base
        return names.get(inside, str(inside)) if 0 <= inside < ID_COUNT else "nobody"

    pids = parts.containers.cgroups.pids(instance.id)
    return listing.processes(pids, user)
