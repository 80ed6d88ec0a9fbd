"""Budgets at work: who is near the end of one is told, who has reached it is stopped.

When a budget can reach its next level is decided in the domain; one task waits for that moment,
in the kernel, or for something that changes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from sublet.domain import budget
from sublet.domain.budget import LabelBudget, Level, Standing
from sublet.domain.change import Change
from sublet.domain.errors import BudgetExhausted, InvalidArgument, NoSuchBudget, SubletError
from sublet.domain.instance import LIVE, Instance, State
from sublet.domain.meter import Charge
from sublet.domain.spec import InstanceSpec
from sublet.domain.units import format_dollars, rfc3339
from sublet.drivers import clock
from sublet.drivers.store.budgets import BudgetStore
from sublet.engine.instances import Instances
from sublet.engine.ledger import Ledger
from sublet.engine.meter import Meter
from sublet.engine.tasks import first

log = logging.getLogger(__name__)

LEAST = 0.2
"""Seconds between two looks at least."""

RETRY = 10.0
"""Seconds after which a stop that failed is tried again."""

Until = Callable[["float | None", float], Coroutine[Any, Any, None]]


class Budgets:
    """The budgets of one daemon's instances and labels."""

    def __init__(
        self,
        instances: Instances,
        meter: Meter,
        store: BudgetStore,
        until: Until = clock.until_or_set,
    ) -> None:
        self._instances, self._parts = instances, instances.parts
        self._meter, self._store, self._until = meter, store, until
        self._ledger = Ledger(meter)
        self._news = asyncio.Event()
        self._stopping: set[str] = set()
        meter.turned, meter.undone = self._turned, self._undone
        instances.lifecycle.permit = self.permit
        instances.notes.append(self.notes)

    # Asked

    def of(self, instance: Instance) -> list[Standing]:
        """How the budgets stand that an instance is under; the most used one first."""
        own = instance.spec.budget
        found = [self._ledger.of_instance(instance, own)] if own else []
        found += [self._ledger.of_label(b) for b in self._covering(instance.spec)]
        return sorted(found, key=lambda standing: -standing.share)

    def _covering(self, spec: InstanceSpec) -> list[LabelBudget]:
        return [label for label in self._store.all() if label.covers(spec.labels)]

    def every(self) -> list[Standing]:
        """How all budgets stand."""
        rows = [row for row in self._parts.store.all() if row.spec.budget]
        labels = [self._ledger.of_label(label) for label in self._store.all()]
        own = [self._ledger.of_instance(row, row.spec.budget) for row in rows if row.spec.budget]
        return labels + own

    def reaches(self, standing: Standing) -> float | None:
        """When it is used up, if all goes on as now."""
        return standing.reaches(1.0, self._meter.now().wall)

    def notes(self, instance: Instance) -> list[str]:
        """A sentence for each budget that is nearly used up."""
        return [s.sentence() for s in self.of(instance) if s.level is not Level.FINE]

    def permit(self, spec: InstanceSpec, instance_id: str = "") -> None:
        """Raises BudgetExhausted where an instance may not start: what is left of a budget does
        not pay for the least that a start is charged."""
        standings = [self._ledger.of_label(label) for label in self._covering(spec)]
        row = self._parts.store.get(instance_id)
        if spec.budget:
            standings.append(self._ledger.of_instance(row, spec.budget) if row else self._new(spec))
        least = self._meter.least(spec) if standings else 0.0
        for standing in standings:
            if standing.spent + least > standing.budget.amount:
                raise _exhausted(standing, row.name if row else spec.name or "INSTANCE", least)

    def _new(self, spec: InstanceSpec) -> Standing:
        """How the budget stands of an instance that is to be made."""
        assert spec.budget
        _, renews = budget.bounds(spec.budget.period, self._meter.now().wall)
        return Standing("", spec.budget, 0.0, 0.0, renews)

    # Set

    async def put(self, subject: str, given: budget.Budget) -> Standing:
        """Give an instance, or all with a label (`label=KEY=VALUE`), a budget. Raises
        InvalidArgument, NoSuchInstance."""
        budget.check_budget(given)
        if label := budget.parse_label(subject):
            made = LabelBudget(*label, given)
            self._store.put(made)
            self._news.set()
            return self._ledger.of_label(made)
        row = await self._instances.update(_instance(subject), Change(budget=given))
        return self._ledger.of_instance(row, given)

    async def remove(self, subject: str) -> None:
        """Take a budget away. Raises NoSuchBudget, NoSuchInstance."""
        if label := budget.parse_label(subject):
            if not self._store.delete(*label):
                raise NoSuchBudget(f"{subject} has no budget.")
            self._store.forget(subject)
            return
        if not self._instances.get(_instance(subject)).spec.budget:
            raise NoSuchBudget(f"{subject} has no budget.")
        await self._instances.update(subject, Change(budget=budget.NONE))

    # Watched

    def _turned(self, ended: Charge | None) -> None:
        """The meter has begun or ended to charge something, or does so at another price."""
        labels = self._store.all()
        if ended is not None and labels:
            run = [c for c in self._meter.charges.of(ended.instance) if c.run == ended.run]
            self._ledger.ended(run, labels)
        self._news.set()

    def _undone(self) -> None:
        """What the meter told last has not come to pass, or ended starts cost less now."""
        self._ledger.forget()
        self._news.set()

    async def watch(self) -> None:
        """Tell and stop, for ever."""
        while True:
            self._news.clear()
            standings = self._look()
            now = self._meter.now().wall
            following = budget.next_look(standings, now)
            following = following and max(following, now + LEAST)
            await first(self._until(following, now), self._news.wait())

    def _look(self) -> list[Standing]:
        """See how the budgets stand of all that runs, and do what is due; how they stand."""
        rows = [row for row in self._parts.store.all() if row.state in LIVE]
        found = []
        for label in self._store.all():
            covered = [row for row in rows if label.covers(row.spec.labels)]
            if covered:
                found.append(self._ledger.of_label(label))
                self._apply(found[-1], covered)
        for row in rows:
            if row.spec.budget:
                found.append(self._ledger.of_instance(row, row.spec.budget))
                self._apply(found[-1], [row])
        return found

    def _apply(self, standing: Standing, covered: list[Instance]) -> None:
        level = standing.level
        if level is Level.FINE:
            return
        key = (standing.subject, standing.budget.amount, standing.renews)
        if level > self._store.told(*key):
            self._store.tell(*key, level)
            for row in covered:
                self._tell("exhausted" if level is Level.EXHAUSTED else "warning", row, standing)
        if level is Level.EXHAUSTED:
            for row in covered:
                self._end(row)

    def _tell(self, what: str, row: Instance, standing: Standing) -> None:
        about = {"name": row.name, "image": row.image, "subject": standing.subject}
        about |= {"budget": str(standing.budget), "spent": f"{standing.spent:.6f}"}
        about |= {"renews": rfc3339(standing.renews)}
        about |= {f"label:{key}": value for key, value in row.spec.labels.items()}
        self._parts.events.publish(f"budget.{what}", row.id, **about)

    def _end(self, row: Instance) -> None:
        if row.id not in self._stopping and row.state is not State.STOPPING:
            self._stopping.add(row.id)
            self._parts.tasks.start(f"budget of {row.name}", self._stop(row))

    async def _stop(self, row: Instance) -> None:
        try:
            await self._instances.stop(row.id)
        except (SubletError, OSError) as error:
            log.warning("%s is over its budget but still runs: %s", row.name, error)
            await asyncio.sleep(RETRY)
        finally:
            self._stopping.discard(row.id)
            self._news.set()


def _instance(subject: str) -> str:
    if subject.startswith("label="):
        raise InvalidArgument(f"'{subject}' names no label.", hint="Write label=KEY=VALUE.")
    return subject


def _exhausted(standing: Standing, name: str, least: float) -> BudgetExhausted:
    label = standing.subject.startswith("label=")
    enough = max(2 * standing.budget.amount, standing.spent + 60 * least)
    amount = format_dollars(float(f"{enough:.2g}"))[1:]
    subject = standing.subject if label else name
    text = standing.sentence()
    if standing.level is not Level.EXHAUSTED:
        text += f" What is left does not pay for a start, which costs ${least:.6f} at least."
    if not standing.subject:
        return BudgetExhausted(text, hint=f"Give --budget {amount}/{standing.budget.period}.")
    command = f"sublet budget set {subject} {amount}/{standing.budget.period}"
    return BudgetExhausted(text, hint=f"Raise it with `{command}`, or wait.")
