"""The way into an instance's files: into one that runs; into the file system of one that does
not, which the host shows, or, of a virtual machine, a guest that is booted for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.instance import Instance, State
from sublet.drivers.access import Access
from sublet.drivers.container.archive import Entrance
from sublet.drivers.vm.files import GuestFiles
from sublet.engine import guests, showing
from sublet.engine.lifecycle import Lifecycle


@asynccontextmanager
async def entered(lifecycle: Lifecycle, instance_id: str, action: str) -> AsyncIterator[Access]:
    """The files of the instance. A `copy` sees what is mounted in it, of one that does not run too.

    Raises NoSuchInstance, WrongState.
    """
    async with showing.mounted(lifecycle, instance_id, action) as instance:
        if instance.spec.vm:
            yield guest(lifecycle, instance)
            return
        if action == "copy" and not instance.pid:
            await _mount_volumes(lifecycle, instance)
        at = lifecycle.parts.containers.places(instance_id)
        yield Entrance(at, instance.pid, instance.pid_start)


async def _mount_volumes(lifecycle: Lifecycle, instance: Instance) -> None:
    parts = lifecycle.parts
    lower = await showing.lower(lifecycle, instance)
    mounts = await lifecycle.volumes.attach(instance, lower)
    parts.containers.mount_volumes(instance.id, mounts, parts.network.uid_base(instance.slot))


def guest(lifecycle: Lifecycle, instance: Instance) -> GuestFiles:
    """The files of a virtual machine that runs, or is visited. Raises WrongState where it stands
    still."""
    if instance.state is State.PAUSED:
        raise WrongState(
            f"{instance.name} is paused, and its files are its own kernel's.",
            hint=f"`sublet unpause {instance.name}` first.",
        )
    return GuestFiles(lifecycle.parts.machines.execute, instance.id, guests.OWN_FILES)


def imaged(instance: Instance) -> None:
    """Raises WrongState where the files below its layer are the host's, no image's."""
    if instance.spec.root:
        raise WrongState(
            f"{instance.name} has the host's root file system, which is nobody's to pack.",
            hint="`sublet diff` shows what it has changed; `sublet cp` copies it out.",
        )


def layered(lifecycle: Lifecycle, instance: Instance) -> None:
    """Raises InvalidArgument where nothing tells what the instance changed from what it was."""
    image = lifecycle.parts.image_store.get(instance.digest)
    if image and image.config.disk:
        raise InvalidArgument(
            f"{instance.name} runs a disk image, which has no layers to compare.",
            hint="`sublet export` gives all its files.",
        )
