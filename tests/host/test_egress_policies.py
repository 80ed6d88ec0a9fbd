"""`--egress`: whom instances may connect to, with real names, servers and attackers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import eventually
from egresslab import ECHO, FILES, OTHER, PRIVATE, RESOLVER, WEB, Town, town
from island import HOST

LIST = "files.example.org,*.wild.example.net"


@pytest.fixture(scope="module")
def whole() -> Iterator[Town]:
    with town() as made:
        yield made


@pytest.fixture
def place(whole: Town) -> Iterator[Town]:
    """The town; afterwards nobody is in it, and nothing is left."""
    yield whole
    whole.sublet.clean()
    ids = [row["name"] for row in whole.sublet.json("network", "ls", "--json")]
    for name in ids:
        if name != "default":
            whole.sublet.ok("network", "rm", name)


def test_a_list_of_names(place: Town) -> None:
    place.start("box", "--egress", LIST)
    assert place.fetch("box", FILES) == "refused", "no name has led there yet"
    assert place.fetch("box", "files.example.org") == "a page"
    assert place.fetch("box", "deep.wild.example.net") == "a page"
    assert place.fetch("box", FILES) == "a page", "for as long as the answer holds"
    assert place.fetch("box", "other.example.org") == "unknown"
    assert place.fetch("box", "secret-words.tunnel.example.org") == "unknown"
    assert not place.asked("secret-words"), "no other name is asked for"
    assert place.fetch("box", OTHER) == "refused"
    assert place.calls("box", RESOLVER, 53) == "refused", "nor by way of another resolver"
    assert place.sublet.json("inspect", "box")["egress"] == LIST.split(",")
    place.start("twin", "--egress", LIST)
    assert place.fetch("twin", FILES) == "refused", "what one was told is not another's"


def test_names_that_lead_to_private_addresses(place: Town) -> None:
    place.start("box", "--egress", "*.evil.example")
    for name in ("metadata", "loopback", "private", "shared"):
        assert place.fetch("box", f"{name}.evil.example") == "unknown", name
        assert place.asked(f"{name}.evil.example")
    assert place.fetch("box", PRIVATE) == "refused"
    assert place.fetch("box", "self.evil.example") == "refused", "the host stays closed"
    place.sublet.ok("update", "--egress", f"*.evil.example,{PRIVATE}", "box")
    assert place.fetch("box", PRIVATE) == "a page", "the owner has listed it"
    assert place.fetch("box", "private.evil.example") == "a page"


def test_none(place: Town) -> None:
    place.start("peer")
    place.start("box", "--egress", "none", "-p", "8080:80")
    assert place.fetch("box", "files.example.org") == "unknown"
    for address in (FILES, PRIVATE, HOST):
        assert place.fetch("box", address) == "refused", address
    assert place.calls("box", place.address("peer")) != "peer"
    assert place.land.from_world(8080) == "box", "who is asked may answer"
    assert "401" in place.fetch("box", "169.254.169.254", 80), "Sublet's own metadata: asks a token"


def test_the_internet_and_nothing_else(place: Town) -> None:
    place.start("peer", "-p", "9090:80")
    place.start("box", "--egress", "internet")
    assert place.fetch("box", "files.example.org") == "a page"
    assert place.fetch("box", OTHER) == "a page"
    assert place.fetch("box", PRIVATE) == "refused"
    assert place.fetch("peer", PRIVATE) == "a page", "as ever without a policy"
    assert place.calls("peer", "box") != "box", "apart from the others of its network"
    assert place.calls("box", place.address("peer")) != "peer"
    assert place.calls("box", HOST, 9090) == "refused", "nor by way of published ports"


def test_all_networks_of_an_instance(place: Town) -> None:
    place.sublet.ok("network", "create", "back")
    place.start("peer", "--network", "back")
    place.start("box", "--egress", "files.example.org")
    place.sublet.ok("network", "connect", "back", "box")
    assert place.calls("box", place.address("peer")) != "peer"
    assert place.fetch("box", "files.example.org") == "a page"
    assert place.fetch("box", OTHER) == "refused"
    place.sublet.ok("network", "disconnect", "default", "box")
    assert place.fetch("box", "files.example.org") == "a page"
    assert place.fetch("box", OTHER) == "refused"


def test_an_instance_with_another_address(place: Town) -> None:
    """One that may change its own network: a former neighbour's address, a free one."""
    place.start("peer")
    place.start("box", "--egress", "files.example.org", "--cap-add", "NET_ADMIN")
    peer = place.address("peer")
    assert place.fetch("peer", OTHER) == "a page"
    place.sublet.ok("rm", "-f", "peer")
    ip = ("exec", "box", "ip")
    for address in (peer, peer.rpartition(".")[0] + ".250"):
        place.sublet.ok(*ip, "addr", "add", f"{address}/20", "dev", "eth0")
        assert place.fetch("box", OTHER, WEB, "--interface", address) != "a page"
    place.sublet.ok(*ip, "addr", "flush", "dev", "eth0")
    place.sublet.ok(*ip, "addr", "add", f"{peer}/20", "dev", "eth0")
    gateway = place.sublet.json("network", "inspect", "default")["gateway"]
    place.sublet.ok(*ip, "route", "add", "default", "via", gateway)
    assert place.fetch("box", OTHER) != "a page"


@pytest.mark.slow
def test_a_machine(place: Town, busybox_file: Path) -> None:
    place.sublet.ok("import", str(busybox_file), "--trust", "-t", "busybox")
    place.start("peer")

    def runs(*command: str) -> str:
        done = place.sublet("exec", "guest", "timeout", "8", *command)
        return f"{done.out}{done.err}"

    def fetched(address: str) -> str:
        return runs("wget", "-q", "-O", "-", f"http://{address}:{WEB}/page")

    flags = ("--vm", "-m", "128m", "--egress", "files.example.org")
    place.sublet.ok("run", "-d", "--name", "guest", *flags, "busybox", "sleep", "3600", timeout=120)
    assert "refused" in fetched(FILES), "no name has led there yet"
    assert FILES in runs("nslookup", "files.example.org")
    assert "a page" in fetched(FILES)
    assert "NXDOMAIN" in runs("nslookup", "other.example.org")
    assert "refused" in fetched(OTHER)
    place.sublet.ok("update", "--egress", "internet", "guest")
    assert "a page" in fetched(OTHER)
    assert "refused" in fetched(PRIVATE)
    assert "peer" not in runs("nc", "-w", "2", place.address("peer"), "80")
    place.sublet.ok("update", "--egress", "none", "guest")
    assert "refused" in fetched(FILES)


def test_changes_of_a_running_instance(place: Town) -> None:
    place.start("box")
    assert place.fetch("box", OTHER) == "a page"
    place.sublet.ok("update", "--egress", "files.example.org", "box")
    assert place.fetch("box", OTHER) == "refused"
    assert place.fetch("box", "files.example.org") == "a page"
    place.sublet.ok("update", "--egress", "*.wild.example.net", "box")
    assert place.fetch("box", FILES) == "refused", "that name is off the list"
    place.sublet.ok("update", "--egress", "internet", "box")
    assert place.fetch("box", FILES) == "a page"
    place.sublet.ok("update", "--egress", "none", "box")
    assert place.fetch("box", FILES) == "refused"
    place.sublet.ok("update", "--egress", "default", "box")
    assert place.fetch("box", "other.example.org") == "a page"
    assert place.sublet.json("inspect", "box")["egress"] is None


def test_a_connection_that_is_not_allowed_any_more(place: Town) -> None:
    """It goes on under another policy that has its address, and not under one that has not."""
    place.start("box")
    script = f"trap '' PIPE; exec 3<>/dev/tcp/{OTHER}/{ECHO}; while :; do echo on >&3; "
    script += "read -t 5 -u 3 word || { echo cut; exit; }; echo $word; sleep 0.05; done"
    argv = ("exec", "box", "timeout", "60", "bash", "-c", f"{{ {script}; }} 2>/dev/null")
    with place.sublet.spawn(*argv) as talk:
        assert talk.stdout
        assert talk.stdout.readline() == "on\n"
        for policy in (OTHER, "internet", f"files.example.org,{OTHER}"):
            place.sublet.ok("update", "--egress", policy, "box")
            assert talk.poll() is None, policy
            assert "cut" not in [talk.stdout.readline() for _ in range(40)], policy
        place.sublet.ok("update", "--egress", "files.example.org", "box")
        assert talk.stdout.read().endswith("cut\n")
        assert talk.wait(30) == 0


def test_a_policy_stays(place: Town) -> None:
    """Over a crash of the daemon, a flush of all rules, a stop, a new name and a fork."""
    place.start("box", "--egress", "files.example.org")
    assert place.fetch("box", "files.example.org") == "a page"

    def stands(name: str, what: str) -> None:
        eventually(lambda: place.fetch(name, "files.example.org") == "a page", what, 30)
        assert place.fetch(name, OTHER) == "refused", what
        assert place.fetch(name, "other.example.org") == "unknown", what

    place.sublet.kill_daemon()
    stands("box", "a crash")
    place.land.run("nft", "flush", "ruleset")
    eventually(lambda: place.fetch("box", FILES) == "a page", "what was granted is again", 30)
    stands("box", "a flush")
    place.sublet.ok("rename", "box", "crate")
    stands("crate", "a new name")
    place.sublet.ok("restart", "crate")
    stands("crate", "a restart")
    place.sublet.ok("fork", "crate", "--name", "copy")
    stands("copy", "a fork")
    place.sublet.ok("rm", "-f", "crate")
    assert json.loads(place.sublet.ok("audit", "--json")) == []
    stands("copy", "the end of another")


def test_requests_that_are_refused(place: Town) -> None:
    for flags, says in (
        (("--egress", "none", "--network", "host"), "has no power"),
        (("--egress", "localhost"), "no name of the internet"),
        (("--egress", "none,example.org"), "stands alone"),
        (("--egress", "example.org", "--dns", "9.9.9.9"), "no --dns"),
    ):
        done = place.sublet("run", *flags, place.tools, "true")
        assert (done.code, done.out) == (125, ""), flags
        assert says in done.err
