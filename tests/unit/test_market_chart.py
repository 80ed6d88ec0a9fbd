"""What `sublet market` and `sublet host` draw, and what the flags of spot mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sublet.cli import market_chart
from sublet.cli.options import rare
from sublet.cli.system import BAR, bars
from sublet.domain.errors import InvalidArgument
from sublet.sdk.results import instance_spec

FOUND: dict[str, Any] = {
    "time": "2026-01-01T02:00:00.000Z",
    "factor": 1.0,
    "used": 1.0,
    "size": "2x8",
    "on_demand_price": 0.1008,
    "price": 0.1008,
    "draining": False,
    "pressure": None,
    "history": [
        {"time": "2026-01-01T00:00:00.000Z", "factor": 0.2, "price": 0.02016, "used": 0.0},
        {"time": "2026-01-01T01:00:00.000Z", "factor": 1.0, "price": 0.1008, "used": 1.0},
    ],
}


def test_the_history_is_drawn_over_time() -> None:
    assert market_chart.sampled(FOUND, 4) == [0.2, 1.0, 1.0, 1.0]
    assert market_chart.sampled(FOUND, 8) == [0.2, 0.2, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0]
    drawn = market_chart.chart(FOUND, 16)
    assert drawn[0] == "100% │       █████████"
    assert drawn[5] == "     │████████████████"
    assert drawn[-1].split() == ["00:00", "02:00", "UTC"]
    late = market_chart.chart({**FOUND, "time": "2026-01-03T02:00:00.000Z"}, 40)
    assert late[-1].split() == ["01-01", "00:00", "01-03", "02:00", "UTC"]
    assert market_chart.chart({**FOUND, "history": []}, 8) == []


def test_the_price_is_told() -> None:
    text = "\n".join(market_chart.lines({**FOUND, "draining": True, "pressure": "memory"}))
    for part in ("$0.1008 an hour, 100.0% of on demand", "draining", "short of memory"):
        assert part in text


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"market.{ending}"
    market_chart.draw(FOUND, str(file))
    assert file.stat().st_size > 1000
    market_chart.draw({**FOUND, "history": []}, str(file))
    with pytest.raises(InvalidArgument):
        market_chart.check("market.jpg")


@pytest.mark.parametrize(
    ("sold", "spot", "full", "shaded"),
    [(0, 0, 0, 0), (50, 50, 25, 25), (100, 0, 50, 0), (1, 1, 1, 1), (99, 1, 49, 1)],
)
def test_what_is_sold_is_a_bar(sold: int, spot: int, full: int, shaded: int) -> None:
    def amount(percent: int) -> dict[str, float]:
        return {"cpus": percent, "memory": percent}

    data = {"rentable": amount(100), "sold": amount(sold), "spot": amount(spot)}
    for row in bars(data)[:2]:
        bar = row.split()[1]
        assert len(bar) == BAR
        assert (bar.count("█"), bar.count("▒")) == (full, shaded)
        assert row.endswith(f" {sold + spot}%")


def test_flags_of_spot() -> None:
    assert rare({})["spot"] is False
    assert rare({"spot": True})["spot"] is True
    flags = {"spot": True, "max_price": "$0.03", "on_reclaim": "stop", "persistent": True}
    flags |= {"notice_signal": "USR1", "notice_exec": "a b"}
    assert rare(flags)["spot"] == {
        "max_price": 0.03,
        "on_reclaim": "stop",
        "persistent": True,
        "notice_signal": "USR1",
        "notice_exec": ["/bin/sh", "-c", "a b"],
    }
    assert rare({"size": "large"})["size"] == "large"
    made = instance_spec("i", size="2x4", spot={"on_reclaim": "stop"})
    assert made == {
        "image": "i", "size_name": "2x4", "market": "spot", "spot": {"on_reclaim": "stop"}
    }  # fmt: skip
    assert instance_spec("i", spot=True) == {"image": "i", "market": "spot"}
