"""What `sublet cost` prints."""

from __future__ import annotations

import pytest

from sublet.cli.billing import duration, print_bill


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.6, "0:01:00"),
        (352, "0:05:52"),
        (12000, "3:20:00"),
        (3686400, "1,024:00:00"),
    ],
)
def test_time_that_is_charged_is_in_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_bill_says_what_its_time_is(capsys: pytest.CaptureFixture[str]) -> None:
    amounts = {"amount": 0.001, "on_demand_amount": 0.002, "around_the_clock_amount": 0.004}
    row = {"name": "db", "market": "spot", "seconds": 60.0, "ec2_amount": None, **amounts}
    print_bill([row, {**row, "seconds": 7200.0}], "instance", ec2=False)
    head, *lines, saved = capsys.readouterr().out.splitlines()
    assert "CHARGED" in head
    assert [line.split()[-4] for line in lines] == ["0:01:00", "2:00:00", "2:01:00"]
    assert saved == "Saved $0.0060, 75%, against on-demand instances that are never stopped."
