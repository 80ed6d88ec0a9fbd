"""Commit: what an instance's files are now becomes an image."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from sublet.domain.disks import LABEL_DISK
from sublet.domain.image import Image, ImageConfig, Step
from sublet.domain.instance import Instance, State
from sublet.domain.instruction import instructed
from sublet.domain.progress import Report
from sublet.domain.units import rfc3339
from sublet.engine import access, altering
from sublet.engine.instances import Instances


@dataclass(frozen=True, slots=True)
class Wish:
    """What the image is to be: `name` (may be empty), the instructions that change its
    configuration, the message and author of its history. `pause`: the instance stands still
    while it is read. `output`: written to this file, and not kept on the shelf unless named."""

    name: str = ""
    changes: tuple[str, ...] = ()
    message: str = ""
    author: str = ""
    pause: bool = True
    output: str = ""


class Commits:
    """Makes images of one daemon's instances."""

    def __init__(self, instances: Instances) -> None:
        self._lifecycle = instances.lifecycle
        self._instances = instances
        self._parts = instances.parts

    async def commit(self, text: str, wish: Wish, report: Report) -> Image:
        """The image of the instance's root file system, without what is mounted in it.

        Raises NoSuchInstance, InvalidArgument, WrongState, DiskFull; Cancelled when the
        instance ends meanwhile.
        """
        instance = self._instances.get(text)
        access.imaged(instance)
        stored = self._parts.image_store.get(instance.digest)
        config = configured(stored.config if stored else ImageConfig(), instance, wish)

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Image]:
            async with access.entered(self._lifecycle, instance.id, "commit") as files:
                async with self._still(instance.id, wish.pause):
                    with files.producing() as producer:
                        packed = self._instances.images.pack_output(
                            producer, config, name=wish.name, output=wish.output, report=report
                        )
                        image = await packed
                yield image

        async with self._lifecycle.visits.stay(instance.id, "commit", place()) as image:
            return image

    @contextlib.asynccontextmanager
    async def _still(self, instance_id: str, pause: bool) -> AsyncIterator[None]:
        """Its processes stand still; the lock keeps others from letting them go. Those of a VM do
        not: it is its own kernel that reads the files."""
        instance = self._lifecycle.parts.store.get(instance_id)
        if not (pause and instance and instance.state is State.RUNNING) or instance.spec.vm:
            yield
            return
        lifecycle = self._lifecycle
        async with (
            lifecycle.locks.hold(instance.id, "commit"),
            altering.still(lifecycle, instance.id),
        ):
            yield


def configured(config: ImageConfig, instance: Instance, wish: Wish) -> ImageConfig:
    """The new image's configuration: the old one's, changed as is wished."""
    now = rfc3339(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    command = " ".join(instance.spec.command or config.cmd)
    step = Step(created=now, created_by=command, comment=wish.message, author=wish.author)
    changed = instructed(config.without_checksums(), wish.changes)
    # Of a disk, the files are taken, and neither its boot loader nor its partitions.
    labels = {key: value for key, value in changed.labels.items() if key != LABEL_DISK}
    return replace(changed, created=now, history=(*config.history, step), labels=labels)
