"""Beside a real Docker whose FORWARD policy is drop, and after others emptied the firewall."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clilab import PROGRAMS, small_tree
from conftest import Sublet, eventually
from island import HOST, INTERNET, Docker, Island, docker, island

SERVE = ("socat", "TCP-LISTEN:80,fork,reuseaddr", "EXEC:hostname")


@dataclass
class Street:
    """Sublet and Docker in one house: `web` and `cli` here, `peer` there."""

    island: Island
    sublet: Sublet
    docker: Docker

    def asks(self, address: str, port: int = 80) -> str:
        """What the address answers Sublet's instance `cli`."""
        argv = ("exec", "cli", "timeout", "3", "bash", "-c", _script(address, port))
        return self.sublet(*argv).out.strip()

    def peer_asks(self, address: str, port: int = 80) -> str:
        """What it answers Docker's container."""
        return self.docker.outcome("peer", _script(address, port)).strip()

    def wrong(self) -> list[str]:
        """What fails of: both engines' containers reach out and each other's published ports, and
        are reached from outside."""
        answers = {
            "web from cli": self.asks("web") == "web",
            "the internet from cli": self.asks(INTERNET) == HOST,
            "the internet from peer": self.peer_asks(INTERNET) == HOST,
            "web from the world": self.island.from_world(8080) == "web",
            "peer from the world": self.island.from_world(9090) == "peer",
            "peer's port from cli": self.asks(HOST, 9090) == "peer",
            "web's port from peer": self.peer_asks(HOST, 8080) == "web",
        }
        return [what for what, well in answers.items() if not well]

    def all_is_well(self) -> None:
        """Both engines' containers have their network, soon."""
        end = time.monotonic() + 120
        while wrong := self.wrong():
            assert time.monotonic() < end, (wrong, self.island.run("nft", "list", "ruleset"))

    def separate(self) -> bool:
        """Neither engine's containers reach the other's by their own addresses."""
        peer = self.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "peer")
        web = self.sublet.json("inspect", "web")["address"]
        return "peer" not in self.asks(peer) and "web" not in self.peer_asks(web)


def _script(address: str, port: int) -> str:
    return f"exec 3<>/dev/tcp/{address}/{port} && cat <&3"


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    place = Path(tempfile.mkdtemp(prefix="sublet-street-"))
    tree = small_tree(place / "tree", (*PROGRAMS, "bash", "hostname", "socat", "timeout"))
    engine = place / "docker"
    engine.mkdir()
    try:
        with island(place) as land, docker(land, engine, tree) as peers:
            land.run("iptables", "-P", "FORWARD", "DROP")
            sublet = Sublet(place / "sublet", before=tuple(land.argv()))
            sublet.home.mkdir()
            sublet.ok("pack", str(tree), "-o", str(place / "tools.sif"))
            tools = str(place / "tools.sif")
            web = ("--name", "web", "--hostname", "web", "-p", "8080:80")
            sublet.ok("run", "-d", *web, tools, *SERVE)
            sublet.ok("run", "-d", "--name", "cli", tools, "sleep", "3600")
            peers("run", "-d", "--name=peer", "--hostname=peer", "-p=9090:80", "tools", *SERVE)
            yield Street(land, sublet, peers)
            sublet.clean()
            sublet.ok("daemon", "--stop")
            for listing in (("nft", "list", "ruleset"), ("iptables-legacy", "-S")):
                assert "sublet" not in land.run(*listing), "nothing is left in others' chains"
    finally:
        shutil.rmtree(place)


def test_docker_drops_what_is_forwarded(street: Street) -> None:
    assert "-P FORWARD DROP" in street.island.run("iptables", "-S", "FORWARD")
    street.all_is_well()
    assert street.separate()


def test_a_flush_of_all_rules(street: Street) -> None:
    street.all_is_well()
    before = street.island.run("iptables", "-t", "nat", "-S")
    street.island.run("nft", "flush", "ruleset")
    street.all_is_well()
    assert street.island.run("iptables", "-t", "nat", "-S") == before, "Docker's rules are back"
    assert "-P FORWARD DROP" in street.island.run("iptables", "-S", "FORWARD")
    assert street.separate()


def test_a_firewall_that_begins_anew(street: Street) -> None:
    """As a reload does: FORWARD is emptied, and made again by who owns it."""
    rules = street.island.run("iptables-save", "-t", "filter")
    street.island.run("iptables", "-F", "FORWARD")
    kept = [line for line in rules.splitlines() if "FORWARD" in line and "sublet" not in line]
    for line in kept:
        if line.startswith("-A"):
            street.island.run("iptables", *line.split())
    street.all_is_well()


def test_the_old_tables(street: Street) -> None:
    street.island.run("iptables-legacy", "-P", "FORWARD", "DROP")
    street.island.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")  # a change that is heard
    eventually(lambda: street.asks(INTERNET) == HOST, "instances reach out")
    assert street.island.from_world(8080) == "web"
    street.island.run("iptables-legacy", "-P", "FORWARD", "ACCEPT")
    street.island.run("ip", "addr", "del", "192.0.2.1/32", "dev", "lo")
