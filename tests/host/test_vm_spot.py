"""Spot VMs: hibernated when they are reclaimed, and woken when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Sublet
from marketlab import LATE, NOTICE, comes, late, tells
from vmhost import COUNT, IMAGE, SMALL, count, daemon, pool, row

from sublet.drivers.vm.memory import PARTIAL

FLAGS = ("--spot", "--persistent", "--on-reclaim", "hibernate")


@pytest.fixture(scope="module")
def host(busybox_file: Path) -> Iterator[Sublet]:
    with daemon(busybox_file, SUBLET_NOTICE=f"{NOTICE:g}s") as sublet:
        yield sublet


@contextmanager
def in_the_way(store: Path) -> Iterator[None]:
    """A mount where the memory is to be saved."""
    place = store / f"memory-image{PARTIAL}"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    subprocess.run(mounted, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def test_it_sleeps_through_a_reclaim_and_goes_on(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "box", *SMALL, *FLAGS, IMAGE, *COUNT)
    before = count(host, "box")
    free = host.json("host", "--json")["free"]["memory"] // (1 << 20)
    host.ok("run", "-d", "--name", "large", "-m", f"{free + 64}m", IMAGE, "sleep", "1000")
    comes(host, "box", "hibernated")
    assert 0 <= late(host, "box") < LATE
    tells(host, "box", "disabled", "instance-stopped-no-capacity")
    host.ok("rm", "-f", "large")
    comes(host, "box", "running")
    tells(host, "box", "active", "fulfilled")
    assert count(host, "box") >= before, "it went on where it was"
    host.ok("host", "drain", "--now")
    comes(host, "box", "hibernated")
    host.ok("stop", "box")
    tells(host, "box", "disabled", "instance-stopped-by-user")
    host.ok("rm", "box")
    host.ok("host", "undrain")


def test_waking_takes_the_room_of_spot(host: Sublet) -> None:
    memory = host.json("host", "--json")["free"]["memory"] // (1 << 20)
    host.ok("run", "-d", "--name", "box", *SMALL, IMAGE, *COUNT)
    before = count(host, "box")
    host.ok("hibernate", "box")
    host.ok("run", "-d", "--name", "cheap", "--spot", "-m", f"{memory - 8}m", IMAGE, *COUNT)
    assert host("wake", "--no-wait", "box").code == 1
    outcome = host("wake", "box")
    assert (outcome.code, "cheap" in outcome.err) == (0, True)
    assert count(host, "box") >= before
    assert host("inspect", "cheap").code == 1
    host.ok("rm", "-f", "box")


def test_where_its_memory_cannot_be_kept_it_is_stopped(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "box", *SMALL, *FLAGS, IMAGE, *COUNT)
    count(host, "box")
    host.ok("spot", "cancel", "box")  # it is not to come back
    with in_the_way(pool(host) / "instances" / str(row(host, "box")["id"])):
        host.ok("reclaim", "--now", "box")
        comes(host, "box", "stopped", 60)
    assert "could not be hibernated" in str(row(host, "box")["reason"])
    host.ok("rm", "box")
