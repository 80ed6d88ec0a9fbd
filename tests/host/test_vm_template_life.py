"""Templates as users meet them: across daemons, crashes, and the removal of their image."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Sublet, eventually
from vmhost import at

from sublet.domain.config import Config

UUID = ("cat", "/proc/sys/kernel/random/uuid")


@contextlib.contextmanager
def daemon(small_file: Path, **extra: str) -> Iterator[Sublet]:
    sublet = at(Path(tempfile.mkdtemp(prefix="sublet-")), **extra)
    try:
        sublet.ok("import", str(small_file), "--trust", "-t", "small")
        yield sublet
        sublet.clean()
    finally:
        sublet.close()


@pytest.fixture
def vms(small_file: Path) -> Iterator[Sublet]:
    with daemon(small_file) as sublet:
        yield sublet


def templates(sublet: Sublet) -> list[Path]:
    """The templates that are whole."""
    identity = Config(run=sublet.run_dir).identity
    pools = (sublet.run_dir / "mnt/pool", Path(f"/run/{identity}.mnt/pool"))
    place = next((pool for pool in pools if pool.exists()), sublet.root) / "templates"
    found = place.iterdir() if place.exists() else ()
    return [each for each in found if not each.name.endswith(".partial")]


def made(sublet: Sublet) -> Path:
    eventually(lambda: templates(sublet), "a template is made")
    return templates(sublet)[0]


def test_the_next_daemon_starts_from_it(vms: Sublet) -> None:
    first = vms.ok("run", "--vm", "--rm", "small", *UUID)
    template = made(vms)
    vms.kill_daemon()
    before = template.stat().st_mtime_ns
    assert vms.ok("run", "--vm", "--rm", "small", *UUID) != first
    assert template.stat().st_mtime_ns > before, "it was not used"
    assert vms.json("audit", "--json") == []


def test_it_goes_with_its_image(vms: Sublet) -> None:
    vms.ok("run", "--vm", "--rm", "small", "true")
    made(vms)
    vms.ok("rmi", "small")
    eventually(lambda: not templates(vms), "the template is gone")


def test_a_daemon_that_is_killed_while_it_makes_one(small_file: Path) -> None:
    with daemon(small_file, SUBLET_FAULT="start/pages:after") as sublet:
        assert sublet("run", "--vm", "--rm", "small", "true").code != 0
        del sublet.extra["SUBLET_FAULT"]
        assert sublet.json("audit", "--json") == []
        assert sublet.ok("run", "--vm", "--rm", "small", "echo", "on") == "on"
        made(sublet)


def test_none_are_wanted(small_file: Path) -> None:
    with daemon(small_file, SUBLET_TEMPLATE_LIMIT="0") as sublet:
        assert sublet.ok("run", "--vm", "--rm", "small", "echo", "on") == "on"
        assert templates(sublet) == []
