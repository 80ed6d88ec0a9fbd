"""Idleness at work: who is not used for as long as its rule says is stopped, hibernated or deleted.

One task for each running instance that has a rule looks at it a few times in a window; where no
instance has one, nothing looks. A window begins with the instance's start, with the daemon's, and
with each use; only time that was seen to be unused counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sublet.domain import idle
from sublet.domain.errors import SubletError, ToolMissing, WrongState
from sublet.domain.idle import Idle, Reading, Standing
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.networks import Mode
from sublet.domain.notice import Action
from sublet.drivers import activity
from sublet.drivers.network.identity import veth
from sublet.drivers.store.keepalives import KeepaliveStore
from sublet.drivers.vm.acceleration import Kind
from sublet.engine.attendance import Attendance
from sublet.engine.instances import Instances

log = logging.getLogger(__name__)

Read = Callable[[Instance], Reading]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class _Watched:
    """An instance with a rule: how it stands, and who looks at it."""

    standing: Standing
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How an instance with a rule stands: `since` when it is unused and when the rule `acts`, in
    seconds since the epoch; why it counts as used, if it does; until when it is `kept` alive."""

    rule: Idle
    since: float
    acts: float | None
    because: tuple[str, ...]
    kept: float | None


class Idleness:
    """The rules for idleness of one daemon's instances."""

    def __init__(
        self,
        instances: Instances,
        store: KeepaliveStore,
        *,
        read: Read | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._instances = instances
        self._lifecycle = instances.lifecycle
        self._read = read or self._measure
        self._now, self._sleep = now, sleep
        self._watched: dict[str, _Watched] = {}
        self._attendance = Attendance(store, self._watched, now)
        self.session = self._attendance.session

    # What becomes of instances

    def up(self, instance: Instance) -> None:
        """It runs, or was found running: its window begins."""
        self._drop(instance.id)
        if instance.spec.idle is None:
            return
        watched = _Watched(idle.begin(self._read(instance)))
        self._watched[instance.id] = watched
        work = self._watch(instance.id, watched)
        watched.task = self._instances.parts.tasks.start(f"idleness of {instance.name}", work)

    def updated(self, instance: Instance) -> None:
        """What was asked of it has changed."""
        watched = self._watched.get(instance.id)
        if instance.state in LIVE and (watched is not None or instance.spec.idle):
            self.up(instance)

    def ended(self, instance: Instance) -> None:
        """It has stopped."""
        self._drop(instance.id)

    def gone(self, instance_id: str) -> None:
        """It is deleted."""
        self._drop(instance_id)
        self._attendance.gone(instance_id)

    # Use

    def keep(self, text: str, seconds: float) -> Instance:
        """It counts as used now, and for so many seconds more; an earlier keep-alive ends.

        Raises WrongState where it has no rule that could act.
        """
        instance = self._instances.get(text)
        if instance.spec.idle is None:
            raise WrongState(
                f"{instance.name} has no rule for idleness: it is not stopped when it is idle.",
                hint=f"`sublet update --idle 30m {instance.name}` gives it one.",
            )
        self._attendance.keep(instance.id, seconds)
        return instance

    def report(self, instance: Instance) -> Report | None:
        """How it stands; None where it has no rule, or does not run."""
        watched, rule = self._watched.get(instance.id), instance.spec.idle
        if watched is None or rule is None or instance.state not in LIVE:
            return None
        because = dict.fromkeys((*watched.standing.because, *self._others(instance)))
        shift = time.time() - self._now()
        since, kept = watched.standing.since, self._attendance.left(instance.id)
        return Report(
            rule=rule,
            since=self._now() + shift if because else since + shift,
            acts=None if because else idle.acts_at(rule, watched.standing) + shift,
            because=tuple(because),
            kept=time.time() + kept if kept else None,
        )

    # Looking

    async def _watch(self, instance_id: str, watched: _Watched) -> None:
        while True:
            instance = self._live(instance_id)
            if instance is None or instance.spec.idle is None:
                return
            await self._sleep(idle.pause(instance.spec.idle))
            instance = self._live(instance_id)
            if instance is None or instance.spec.idle is None:
                return
            limit = await self._limit(instance)
            others = self._others(instance)
            self._attendance.looked(instance.id)
            watched.standing = idle.following(watched.standing, self._read(instance), limit, others)
            if idle.due(instance.spec.idle, watched.standing):
                name = f"idle {instance.spec.idle.action} of {instance.name}"
                self._instances.parts.tasks.start(name, self._act(instance, instance.spec.idle))
                return

    async def _limit(self, instance: Instance) -> float:
        """The share of one CPU from which on it is in use."""
        emulated = False
        if instance.spec.vm:
            with contextlib.suppress(ToolMissing):
                found = await self._instances.parts.machines.acceleration()
                emulated = found.kind is Kind.TCG
        return idle.busy_cpu(instance.spec.size.cpus, emulated=emulated)

    def _live(self, instance_id: str) -> Instance | None:
        instance = self._instances.parts.store.get(instance_id)
        return instance if instance is not None and instance.state in LIVE else None

    def _others(self, instance: Instance) -> list[str]:
        """Why it counts as used beyond what is measured."""
        seen = {}
        if not instance.spec.vm and instance.pid:
            seen["ssh"] = activity.ssh_connections(instance.pid)
        found = self._attendance.because(instance.id, seen)
        if instance.state is State.PAUSED:
            found.append("it is paused")
        if action := self._lifecycle.locks.action(instance.id):
            found.append(f"something is done with it: {action}")
        return found

    def _measure(self, instance: Instance) -> Reading:
        parts = self._instances.parts
        return activity.read(parts.containers.cgroups, instance.id, self._links(instance))

    def _links(self, instance: Instance) -> list[str] | None:
        """The host's ends of the cables that its traffic goes through; None if nobody can tell."""
        if Mode.of(instance.spec.network) is Mode.CONTAINER:
            other = instance.spec.network.partition(":")[2]
            found = self._instances.parts.store.get(other)
            return self._links(found) if found else None
        connections = self._lifecycle.connections.of(instance)
        return [veth(instance.id, connection.interface) for connection in connections]

    async def _act(self, instance: Instance, rule: Idle) -> None:
        self._lifecycle.tell("idle", instance, action=str(rule.action), after=f"{rule.after:g}")
        log.info("%s is idle: %s", instance.name, rule.action)
        try:
            if rule.action is Action.STOP:
                await self._instances.stop(instance.id)
            elif rule.action is Action.HIBERNATE:
                await self._instances.hibernate(instance.id)
            else:
                await self._instances.remove(instance.id, force=True, volumes=True)
        except (SubletError, OSError) as error:
            log.warning("%s is idle, but %s failed: %s", instance.name, rule.action, error)
            current = self._live(instance.id)
            if current is not None:  # once more, after a window
                self._lifecycle.tell("idle-failed", current, error=str(error))
                self.up(current)
                self._attendance.touch(current.id, f"{rule.action} failed: {error}")

    def _drop(self, instance_id: str) -> None:
        watched = self._watched.pop(instance_id, None)
        if watched and watched.task:
            watched.task.cancel()
