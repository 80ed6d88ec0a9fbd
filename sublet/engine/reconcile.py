"""What a new daemon does first: compare the rows with the host, and make both true.

What lives is adopted, what was half done is finished, what belongs to nobody is removed.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sublet.domain.errors import SubletError
from sublet.domain.instance import HELD, LIVE, Instance, State
from sublet.domain.leftover import Leftover
from sublet.domain.recovery import Fate, fate
from sublet.domain.waking import sleeps
from sublet.drivers import processes
from sublet.drivers.network import Endpoint
from sublet.engine import hibernation
from sublet.engine.backups import Backups
from sublet.engine.images import Images
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.meter import Meter
from sublet.engine.restarts import Restarts
from sublet.engine.rollbacks import Rollbacks

log = logging.getLogger(__name__)

GUARD_INTERVAL = 60.0
"""Seconds between looks at whether bridges, rules and resolvers are still there, where the kernel
tells of no change."""

PROCESS_INTERVAL, GUARD_PAUSE = 5.0, 0.5
"""Seconds between looks at whether resolvers and forwarders run, and between any two looks."""


class Reconciler:
    """Start-up recovery, and the audit that says what it would do now."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        images: Images,
        restarts: Restarts,
        rollbacks: Rollbacks,
        backups: Backups,
        meter: Meter,
    ) -> None:
        self.lifecycle = lifecycle
        self.parts = lifecycle.parts
        self.images = images
        self.restarts = restarts
        self.rollbacks, self.snapshots = rollbacks, rollbacks.snapshots
        self.meter = meter
        self.backups = backups

    async def recover(self) -> None:
        """Bring every instance into a true state, then remove what belongs to nobody."""
        await self.rollbacks.recover()
        await self.snapshots.clean()
        instances = self.parts.store.all()
        alive = {i.id for i in instances if self._alive(i)}
        for instance in instances:
            try:
                await self._settle(instance, fate(instance, alive=instance.id in alive))
            except Exception:  # one broken instance must not keep the daemon from all others
                log.exception("%s could not be recovered", instance.name)
        await self._hold_ports()
        try:
            await self.fix()
        except Exception:
            log.exception("not everything that belongs to nobody could be removed")
        self.meter.recover()
        self.restarts.recover()
        self.backups.recover()

    @staticmethod
    def _alive(instance: Instance) -> bool:
        return instance.state in HELD and processes.alive(
            instance.supervisor, instance.supervisor_start
        )

    async def _adopt(self, instance: Instance) -> None:
        parts = self.parts
        if instance.state is State.HIBERNATING:
            instance = self.lifecycle.move(instance, State.RUNNING)
        if instance.spec.vm:
            await hibernation.drop(self.lifecycle, instance)  # it had just been woken
        else:
            parts.layers.adopt(parts.image_file(instance.digest), instance.id)
        self.lifecycle.volumes.adopt(instance)
        await parts.network.announce(self.lifecycle.connections.endpoint(instance))
        try:
            await self.lifecycle.containers.show_host(instance)
        except SubletError as error:  # a program inside may have taken the port meanwhile
            log.warning("%s", error)
        self.lifecycle.watch(instance)
        self.lifecycle.tell("adopted", instance)
        runner = parts.runner(instance)  # a pause, a save or an update may have been cut off
        await runner.freeze(instance.id, instance.state is State.PAUSED)
        runner.limit(instance.id, instance.spec.size, instance.spec.pids_limit)

    async def _settle(self, instance: Instance, what: Fate) -> None:
        """Finish what the instance was in the middle of."""
        lifecycle = self.lifecycle
        match what:
            case Fate.ADOPT:
                await self._adopt(instance)
            case Fate.FINISH:
                code = self.parts.runner(instance).exit_code(instance.id)
                await lifecycle.finish(instance.id, instance.exit_code if code is None else code)
            case Fate.STOP:
                await lifecycle.releases.release(instance.id)
                lifecycle.move(instance, State.STOPPED, reason="the daemon ended during its start")
            case Fate.REMOVE:
                await lifecycle.remove(instance, volumes=True)
            case Fate.COMPLETE_REMOVAL:
                await lifecycle.complete_removal(instance)
            case Fate.SLEEP:
                await hibernation.recover(lifecycle, instance)
            case Fate.LEAVE:
                pass

    async def _hold_ports(self) -> None:
        """The ports of instances that sleep are theirs."""
        for instance in self.parts.store.all():
            if sleeps(instance) and not self.lifecycle.locks.action(instance.id):
                async with self.lifecycle.locks.hold(instance.id, "ports"):
                    current = self.parts.store.get(instance.id)
                    if current is not None and sleeps(current):
                        await self.lifecycle.releases.withdraw(current)

    async def guard(self) -> None:
        """Bring the network back whenever something else removed it: a firewall's reload, say."""
        self.parts.network.watch.open()
        try:
            while True:
                await self._look()
                await self._until_changed()
        finally:
            self.parts.network.watch.close()

    async def _look(self) -> None:
        """See whether the network is whole, and mend it."""
        network = self.parts.network
        try:
            if not await network.healthy():
                log.warning("the network was damaged from outside; repairing it")
                await network.repair(self._endpoints())
                await self._hold_ports()
            for endpoint in self._endpoints():
                await self._forward(endpoint)
        except (OSError, SubletError) as error:
            log.error("the network could not be repaired: %s", error)

    async def _until_changed(self) -> None:
        """Wait for a reason to look at everything again."""
        network, deadline = self.parts.network, time.monotonic() + GUARD_INTERVAL
        await asyncio.sleep(GUARD_PAUSE)
        while (left := deadline - time.monotonic()) > 0 and network.serving():
            if await network.watch.wait(min(left, PROCESS_INTERVAL)):
                return

    async def _forward(self, endpoint: Endpoint) -> None:
        """Start forwarders that are gone; systemd ends them with the daemon's unit, say."""
        network, instance_id = self.parts.network, endpoint.instance_id
        if network.ports.forwards(endpoint) or self.lifecycle.locks.action(instance_id):
            return
        async with self.lifecycle.locks.hold(instance_id, "port repair"):
            instance = self.parts.store.get(instance_id)
            if instance and instance.state in LIVE:
                log.warning("forwarders of %s are gone; starting them", instance.name)
                await network.ports.repair(endpoint)

    def _endpoints(self) -> list[Endpoint]:
        connections, rows = self.lifecycle.connections, self.parts.store.all()
        return [connections.endpoint(instance) for instance in rows if instance.state in LIVE]

    async def audit(self) -> list[Leftover]:
        """What is on the host and belongs to no instance, or to one that does not run."""
        parts = self.parts
        known, live = {i.id for i in parts.store.all()}, self._live()
        found = parts.containers.leftovers(known, live)
        asleep = {i.id for i in parts.store.all() if sleeps(i)}
        found += await parts.network.leftovers(live, asleep)
        found += [Leftover("mount", str(parts.layers.mounts / k)) for k in self._unused_layers()]
        found += await self.images.leftovers()
        found += self.lifecycle.volumes.leftovers()
        found += self.snapshots.leftovers()
        found += self.backups.leftovers()
        found += parts.machines.leftovers(live | self._asleep())
        started = self._live()  # while all this was looked at
        return [leftover for leftover in found if leftover.owner not in started]

    def _live(self) -> set[str]:
        """The ids of instances that run, or are about to, or have something done to them."""
        rows = self.parts.store.all()
        busy = {i.id for i in rows if self.lifecycle.locks.action(i.id)}
        return busy | {i.id for i in rows if i.state in HELD or i.state is State.PENDING}

    def _asleep(self) -> set[str]:
        """The ids of instances whose memory is kept."""
        return {i.id for i in self.parts.store.all() if i.state is State.HIBERNATED}

    async def fix(self) -> list[Leftover]:
        """Remove all that `audit` finds; what it found."""
        found = await self.audit()
        for owner in sorted({leftover.owner for leftover in found if leftover.owner}):
            if owner in self._live():
                continue
            log.warning("removing what is left of %s", owner)
            async with self.lifecycle.locks.hold(owner, "clean-up"):
                await self.lifecycle.releases.release(owner)
                if self.parts.store.get(owner) is None:
                    await self.parts.containers.delete(owner)
        for key in self._unused_layers():
            self.parts.layers.drop(key)
        await self.parts.network.clean()
        await self.images.clean()
        await self.lifecycle.volumes.clean()
        await self.snapshots.clean()
        await self.backups.clean()
        await self.parts.machines.clean(self._live() | self._asleep())
        return found

    def _unused_layers(self) -> list[str]:
        images = {self.parts.image_file(image.digest).stem for image in self.images.all()}
        return self.parts.layers.unused(images)
