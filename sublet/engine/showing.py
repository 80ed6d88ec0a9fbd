"""The files of instances that do not run: shown for as long as somebody looks at them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sublet.domain.errors import NoSuchInstance, WrongState
from sublet.domain.instance import LIVE, Instance, State
from sublet.engine.lifecycle import Lifecycle


@asynccontextmanager
async def _shown(lifecycle: Lifecycle, instance: Instance, *, volumes: bool) -> AsyncIterator[None]:
    """A way to the files of an instance that does not run, `volumes` of a VM among them. What a
    guest has written, the host's kernel never reads: another guest does."""
    if not instance.spec.vm:
        await lifecycle.containers.mount(instance, lifecycle.image(instance))
        yield
        return
    if instance.state is State.HIBERNATED:
        raise WrongState(
            f"{instance.name} is hibernated: what is on its disk belongs to its memory.",
            hint=f"Wake it first: sublet wake {instance.name}.",
        )
    image = lifecycle.image(instance)
    async with lifecycle.machines.visited(instance, image, volumes=volumes):
        yield


@asynccontextmanager
async def mounted(lifecycle: Lifecycle, instance_id: str, action: str) -> AsyncIterator[Instance]:
    """The instance, whose file system is mounted, whether it runs or not.

    A running one is not locked: whoever reads slowly must not keep it from ending.
    """
    instance = _present(lifecycle, instance_id)
    if instance.state not in LIVE:
        async with lifecycle.locks.hold(instance_id, action):
            instance = _present(lifecycle, instance_id)
            if instance.state not in LIVE:
                try:
                    async with _shown(lifecycle, instance, volumes=action == "copy"):
                        yield instance
                finally:
                    await lifecycle.anyway(lifecycle.releases.release(instance_id))
                return
    yield instance


def _present(lifecycle: Lifecycle, instance_id: str) -> Instance:
    instance = lifecycle.parts.store.get(instance_id)
    if instance is None:
        raise NoSuchInstance(f"The instance {instance_id} is gone.")
    if instance.state is State.SHUTTING_DOWN:
        raise WrongState(f"{instance.name} is being removed.", hint="It will be gone soon.")
    return instance


async def lower(lifecycle: Lifecycle, instance: Instance) -> Path:
    """The directory that shows the instance's image, until `release`."""
    return await lifecycle.containers.lower(instance, lifecycle.image(instance))
