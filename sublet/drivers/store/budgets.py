"""Budgets of labels, and what was told of budgets, in the database."""

from __future__ import annotations

from sublet.domain.budget import Budget, LabelBudget, Level, Period
from sublet.drivers.store.database import Database

LONGEST = 32 * 86400.0
"""Seconds that no period of a budget lasts."""


class BudgetStore:
    """The rows of `budgets` and `budget_levels`."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        rows = self._connection.execute("SELECT * FROM budgets ORDER BY key, value")
        self._budgets = {
            (row["key"], row["value"]): LabelBudget(
                row["key"], row["value"], Budget(row["amount"], Period(row["period"]))
            )
            for row in rows
        }

    def all(self) -> list[LabelBudget]:
        """The budgets of labels, by key and value."""
        return [self._budgets[key] for key in sorted(self._budgets)]

    def put(self, budget: LabelBudget) -> None:
        """Write a budget in the place of one that the label has."""
        given = budget.budget
        self._connection.execute(
            "INSERT OR REPLACE INTO budgets VALUES (?, ?, ?, ?)",
            (budget.key, budget.value, given.amount, given.period.value),
        )
        self._budgets[budget.key, budget.value] = budget

    def delete(self, key: str, value: str) -> bool:
        """Forget one; whether there was one."""
        self._connection.execute("DELETE FROM budgets WHERE key = ? AND value = ?", (key, value))
        return self._budgets.pop((key, value), None) is not None

    def told(self, subject: str, amount: float, renews: float) -> Level:
        """What was told of a budget in the period that ends then."""
        row = self._connection.execute(
            "SELECT level FROM budget_levels WHERE subject = ? AND amount = ? AND renews = ?",
            (subject, amount, renews),
        ).fetchone()
        return Level(row["level"]) if row else Level.FINE

    def tell(self, subject: str, amount: float, renews: float, level: Level) -> None:
        """Remember that it was told, and forget what was in periods that are over."""
        self._connection.execute("DELETE FROM budget_levels WHERE renews < ?", (renews - LONGEST,))
        self._connection.execute(
            "INSERT OR REPLACE INTO budget_levels VALUES (?, ?, ?, ?)",
            (subject, amount, renews, int(level)),
        )

    def forget(self, subject: str) -> None:
        """What it was told of is gone."""
        self._connection.execute("DELETE FROM budget_levels WHERE subject = ?", (subject,))
