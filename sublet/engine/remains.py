"""What runs of schedules leave: their instances, with files and logs, until they are too many."""

from __future__ import annotations

import logging

from sublet.domain.errors import NoSuchInstance, SubletError
from sublet.domain.instance import Instance
from sublet.domain.schedules import LABEL, OPEN, Run, Schedule
from sublet.drivers.store.schedules import ScheduleStore
from sublet.engine.instances import Instances

log = logging.getLogger(__name__)


class Remains:
    """The instances that runs of one daemon's schedules have made."""

    def __init__(self, instances: Instances, store: ScheduleStore) -> None:
        self._instances, self._store = instances, store
        self._rows = instances.parts.store

    def instance(self, schedule: Schedule, run: Run) -> Instance | None:
        """The instance of a run: by its name where a crash came before its id was noted."""
        if found := self._rows.get(run.instance):
            return found
        named = [row for row in self._rows.find(run.name) if row.name == run.name]
        ours = [row for row in named if row.spec.labels.get(LABEL) == schedule.name]
        return ours[0] if ours else None

    async def prune(self, schedule: Schedule) -> None:
        """Delete the instances of all but the newest runs that are over."""
        if schedule.start:
            return
        over = [r for r in self._store.runs(schedule.id) if r.outcome not in OPEN and r.instance]
        for run in over[schedule.keep :]:
            await self._remove(schedule, run)

    async def clear(self, schedule: Schedule) -> None:
        """Delete the instances of all its runs."""
        if schedule.start:
            return
        for run in self._store.runs(schedule.id):
            await self._remove(schedule, run)

    async def _remove(self, schedule: Schedule, run: Run) -> None:
        instance = self.instance(schedule, run)
        if instance is None:
            return
        try:
            await self._instances.remove(instance.id, force=True, volumes=True)
        except NoSuchInstance:
            return
        except (SubletError, OSError) as error:
            log.warning("%s of a schedule could not be removed: %s", instance.name, error)
