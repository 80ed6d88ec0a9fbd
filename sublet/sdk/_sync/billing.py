# Made from ../_async/billing.py by scripts/unasync.py; edit that file.
"""The client's verbs on the bill.
"""

from __future__ import annotations

from sublet.sdk._sync.calls import Calls

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class BillingVerbs(Calls):
    """What instances cost."""

    def cost(
        self,
        *,
        by: str = "instance",
        since: str = "",
        until: str = "",
        tz: str = "UTC",
        instance: str = "",
    ) -> list[dict[str, Any]]:
        """The bill, a line for each instance, `day` (of the time zone `tz`), `market` or value of
        a label (`label=KEY`), in dollars. `since` and `until`: RFC 3339, seconds since the epoch,
        or an age such as 30d. `instance`: that of one name or id alone."""
        query = {"by": by, "since": since, "until": until, "tz": tz, "instance": instance}
        return list(self.call("GET", "/v1/cost", **query))

    def budgets(self) -> list[dict[str, Any]]:
        """How all budgets stand: `subject` (an instance's id, or `label=KEY=VALUE`), `name`,
        `amount` and `spent` in dollars a `period`, `share`, `state` (fine, warning, exhausted),
        and when it `renews` and, if all goes on as now, `reaches` its end."""
        return list(self.call("GET", "/v1/budgets"))

    def set_budget(self, subject: str, budget: str) -> dict[str, Any]:
        """Give an instance, or all with a label (`label=KEY=VALUE`) together, a budget such as
        5/month: how it stands."""
        from sublet.domain.budget import parse_budget

        given = parse_budget(budget)
        body = {"subject": subject, "amount": given.amount, "period": given.period.value}
        return dict(self.call("PUT", "/v1/budgets", body))

    def remove_budget(self, subject: str) -> None:
        """Take a budget away from an instance, or from a label."""
        self.call("DELETE", "/v1/budgets", subject=subject)

    def what_if(
        self,
        size: str,
        *,
        hours: float = 24.0,
        days: float = 31.0,
        spot: bool = False,
        ec2: bool = False,
    ) -> dict[str, Any]:
        """What a size such as 2x8 would cost in a month, used so many hours on so many days: the
        four `scenarios`, and whose `prices` they are at. With `ec2`, at EC2's."""
        query = {"size": size, "hours": hours, "days": days, "spot": spot, "ec2": ec2}
        return dict(self.call("GET", "/v1/cost/what-if", **query))
