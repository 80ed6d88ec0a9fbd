"""What `compare` makes of its measurements: amounts, how many fit, table and picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.cli import charts
from sublet.cli.comparing import rows
from sublet.cli.comparison_chart import draw
from sublet.domain.comparison import LIMITS, PROMISED, Host, Measured, holds
from sublet.domain.errors import InvalidArgument
from sublet.domain.size import Size
from sublet.domain.units import GIB, MIB

SIZE = Size(1, 512 * MIB)
HOST = Host(memory=20 * GIB, cpus=32, disk=60 * GIB)
CONTAINERS = Measured(
    starts=[20.0, 30.0, 25.0],
    memory=[MIB, MIB, 2 * MIB],
    disk=[0, 0, 0],
    processes=[2, 2, 2],
    shared_memory={},
    shared_disk={"image": 60 * MIB},
)
MACHINES = Measured(
    starts=[200.0, 210.0, 220.0],
    memory=[40 * MIB] * 3,
    disk=[6 * MIB] * 3,
    processes=[2, 2, 2],
    shared_memory={"template": 80 * MIB},
    shared_disk={"image": 60 * MIB, "template": 90 * MIB},
    cold=[2000.0, 2100.0],
)


def found(**changes: Any) -> dict[str, Any]:
    """What `compare` answers, of a host of these numbers."""
    host = {"cpus": 2, "memory": 24 * GIB, "acceleration": {"kind": "tcg", "reason": ""}}
    data = {"image": "debian:bookworm", "command": ["sleep", "inf"], "size": "1x0.5", "count": 3}
    sides = {"container": CONTAINERS.report(SIZE, HOST), "vm": MACHINES.report(SIZE, HOST)}
    return {**data, "host": host, **sides, **changes}


def test_a_report_is_plain_data_of_medians_and_totals() -> None:
    report = MACHINES.report(SIZE, HOST)
    assert json.loads(json.dumps(report)) == report
    assert (report["start_ms"], report["cold_start_ms"]) == (210.0, 2050.0)
    assert report["memory"] == {"each": 40 * MIB, "shared": 80 * MIB, "total": 200 * MIB}
    assert report["disk"] == {"each": 6 * MIB, "shared": 150 * MIB, "total": 168 * MIB}
    assert CONTAINERS.report(SIZE, HOST)["cold_start_ms"] is None


def test_how_many_fit_and_what_ends_it() -> None:
    found = holds(40 * MIB, 80 * MIB, 6 * MIB, SIZE, HOST)
    by = {"memory": 510, "disk": 10240, "network": 1023, "memory_sold": 40, "cpus_sold": 32}
    assert found["by"] == by
    assert (found["count"], found["limit"]) == (32, "cpus_sold")
    assert found["fits"] == {"count": 510, "limit": "memory"}


def test_what_takes_nothing_sets_no_limit() -> None:
    found = holds(0, 0, 0, SIZE, HOST)
    by = found["by"]
    assert isinstance(by, dict)
    assert by.keys() == LIMITS.keys() - {"memory", "disk"}
    assert found["fits"] == {"count": 1023, "limit": "network"}


amounts = st.integers(0, 1 << 40)


@given(amounts, amounts, amounts, st.floats(0.01, 64), st.integers(6 * MIB, 1 << 40), amounts)
def test_no_host_holds_fewer_than_none_nor_more_than_it_can(
    memory: int, shared: int, disk: int, cpus: float, size: int, room: int
) -> None:
    found = holds(memory, shared, disk, Size(cpus, size), Host(room, 32, room))
    count, by = found["count"], found["by"]
    assert isinstance(count, int)
    assert isinstance(by, dict)
    assert count == min(by.values()) >= 0
    assert count * size <= room
    if count:
        assert count * memory + shared <= room
    assert set(PROMISED) < set(LIMITS)


def test_the_table_marks_what_ends_it() -> None:
    table = {name: (container, vm) for name, container, vm in rows(found())}
    assert table["start"] == ("25 ms", "210 ms")
    assert table["start, cold"] == ("-", "2,050 ms")
    assert table["memory, each"] == ("1.0 MiB", "40.0 MiB")
    assert table["memory, all 3"] == ("4.0 MiB", "200.0 MiB")
    assert table["host holds, by memory measured"] == ("20,480", "510")
    assert table["host holds, by disk measured"] == ("-", "10,240")
    assert table["host holds, by vCPUs sold"] == ("32 <", "32 <")


@pytest.mark.parametrize(
    "changes", [{}, {"count": 1}, {"image": "$\\frac{$", "command": ["\x1b$x"]}]
)
def test_the_picture_is_what_its_name_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    for name in ("a.png", "b.SVG"):
        draw(found(**changes), str(tmp_path / name))
    png = (tmp_path / "a.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(png[16:20], "big") > 1000  # its width, in pixels
    assert ElementTree.parse(tmp_path / "b.SVG").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "b.SVG"]


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    draw(found(), str(tmp_path / "a.svg"))
    draw(found(), str(tmp_path / "b.svg"))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_wide_picture_has_room_for_its_texts(tmp_path: Path) -> None:
    """Nothing is drawn outside: matplotlib would cut it off without a word."""
    import matplotlib.text

    drawn = charts.figure(9.6, 5.4)
    axes = drawn.subplots(1, 1)
    charts.plain(axes, "A title", ["one", "two"], 2)
    axes.set_xlim(0, 1.5)
    axes.barh([0, 1], [1.0, 0.5], height=charts.THICK)
    charts.beside(axes, 1.0, 0, "1,023.5 MiB", "each 1,023.5 MiB, once 1,023.5 MiB")
    charts.save(drawn, str(tmp_path / "a.png"))
    for text in drawn.findobj(matplotlib.text.Text):
        assert isinstance(text, matplotlib.text.Text)
        if text.get_text() and text.get_visible():
            assert text.get_window_extent().x1 <= drawn.bbox.x1


@pytest.mark.parametrize("name", ["a.pdf", "a", ".png", "missing/a.png"])
def test_other_pictures_are_refused_before_anything_is_measured(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument):
        charts.picture_format(str(tmp_path / name))
