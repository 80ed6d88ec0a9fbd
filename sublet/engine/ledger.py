"""What is spent of budgets: the ended starts of a period summed up once, the others each time."""

from __future__ import annotations

from sublet.domain import bill, budget
from sublet.domain.bill import Span
from sublet.domain.budget import Budget, LabelBudget, Standing
from sublet.domain.instance import Instance
from sublet.domain.meter import Charge
from sublet.engine.meter import Meter


class Ledger:
    """Tells how budgets stand. It hears of each start that has ended from the meter, so that it
    need not read all that was ever charged whenever somebody asks."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._ended: dict[str, tuple[float, float]] = {}
        """By subject: the period's beginning, and what the starts cost in it that have ended."""

    def forget(self) -> None:
        """What was summed up is not true any more."""
        self._ended.clear()

    def of_instance(self, instance: Instance, given: Budget) -> Standing:
        """How the budget of one instance stands."""
        now = self._meter.now().wall
        begin, renews = budget.bounds(given.period, now)
        spent = self._meter.cost(instance.id, begin, renews)
        charge = self._meter.charges.open.get(instance.id)
        return Standing(instance.id, given, spent, charge.price if charge else 0.0, renews)

    def of_label(self, label: LabelBudget) -> Standing:
        """How the budget of a label stands."""
        now = self._meter.now()
        begin, renews = budget.bounds(label.budget.period, now.wall)
        open_ = [c for c in self._meter.charges.open.values() if label.covers(c.labels)]
        spent = self._of_ended(label, begin, renews)
        for charge in open_:
            run = [c for c in self._meter.charges.of(charge.instance) if c.run == charge.run]
            spent += _amount(bill.spans(run, now, set()), begin, renews)
        return Standing(label.subject, label.budget, spent, sum(c.price for c in open_), renews)

    def _of_ended(self, label: LabelBudget, begin: float, renews: float) -> float:
        known = self._ended.get(label.subject)
        if known and known[0] == begin:
            return known[1]
        running = {charge.run for charge in self._meter.charges.open.values()}
        charges = self._meter.charges.since(begin)
        found = [c for c in charges if c.run not in running and label.covers(c.labels)]
        spent = _amount(bill.spans(found, self._meter.now(), set()), begin, renews)
        self._ended[label.subject] = (begin, spent)
        return spent

    def ended(self, run: list[Charge], labels: list[LabelBudget]) -> None:
        """A start has ended: add it up."""
        spans = None
        for label in labels:
            if label.subject in self._ended and label.covers(run[0].labels):
                spans = spans or bill.spans(run, self._meter.now(), set())
                begin, spent = self._ended[label.subject]
                _, renews = budget.bounds(label.budget.period, begin)
                self._ended[label.subject] = (begin, spent + _amount(spans, begin, renews))


def _amount(spans: list[Span], since: float, until: float) -> float:
    return sum(bill.clipped(span, since, until).amount for span in spans)
