"""`sublet network …` and `run --network …`, with real containers."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from clilab import PROGRAMS, refused, small_tree
from conftest import Sublet, eventually

SERVE = ("socat", "TCP-LISTEN:80,fork,reuseaddr", "EXEC:hostname")


@pytest.fixture(scope="session")
def tools(shared: Sublet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with what a look at the network needs."""
    tree = tmp_path_factory.mktemp("tools") / "tree"
    small_tree(tree, (*PROGRAMS, "bash", "getent", "hostname", "ip", "ls", "socat", "timeout"))
    file = tree.with_name("tools.sif")
    shared.ok("pack", str(tree), "-o", str(file))
    return str(file)


@pytest.fixture
def host(sublet: Sublet) -> Iterator[Sublet]:
    """The command line; networks are removed afterwards."""
    yield sublet
    ids = sublet.ok("ps", "-aq").split()
    if ids:
        sublet.ok("rm", "-f", *ids)
    sublet.ok("network", "prune", "-f")


def serve(host: Sublet, tools: str, name: str, *flags: str) -> None:
    """An instance that tells its name on port 80."""
    host.ok("run", "-d", "--name", name, "--hostname", name, *flags, tools, *SERVE)
    listens(host, name)


def listens(host: Sublet, name: str) -> None:
    """Wait until its server takes connections: state 0A of proc_net_tcp.txt."""
    place = Path(f"/proc/{host.json('inspect', name)['pid']}/net/tcp")
    eventually(lambda: " 0A " in place.read_text(), f"{name} listens")


def asks(host: Sublet, name: str, target: str) -> str:
    """What the server `target` answers the instance, empty for nothing."""
    script = f"exec 3<>/dev/tcp/{target}/80 && cat <&3"
    return host("exec", name, "timeout", "3", "bash", "-c", script).out.strip()


def looks(host: Sublet, name: str, what: str) -> set[str]:
    """The addresses of a name, as the instance sees it."""
    lines = host("exec", name, "getent", "ahostsv4", what).out.splitlines()
    return {line.split()[0] for line in lines}


def addresses(host: Sublet, name: str) -> dict[str, str]:
    """The instance's interfaces, as it sees them."""
    rows = json.loads(host.ok("exec", name, "ip", "-j", "addr"))
    return {
        row["ifname"]: row["addr_info"][0]["local"]
        for row in rows
        if row["ifname"] != "lo" and row["addr_info"]
    }


def test_networks_are_isolated(host: Sublet, tools: str) -> None:
    for name in ("one", "two"):
        host.ok("network", "create", name)
    serve(host, tools, "a", "--network", "one", "--network-alias", "store")
    serve(host, tools, "b", "--network", "one", "--network-alias", "store")
    serve(host, tools, "c", "--network", "two", "--network-alias", "store")
    serve(host, tools, "d")
    place = {name: host.json("inspect", name)["address"] for name in "abcd"}
    assert asks(host, "a", "b") == "b"
    assert asks(host, "a", place["b"]) == "b"
    assert looks(host, "a", "store") == {place["a"], place["b"]}, "one alias, several addresses"
    assert looks(host, "c", "store") == {place["c"]}
    for other in "cd":
        assert asks(host, "a", place[other]) == ""
        assert looks(host, "a", other) == set()
        assert asks(host, other, place["a"]) == ""
    gateway = host.json("network", "inspect", "two")["gateway"]
    assert asks(host, "a", gateway) == ""


def test_connect_and_disconnect(host: Sublet, tools: str) -> None:
    host.ok("network", "create", "back", "--subnet", "10.99.77.0/24")
    serve(host, tools, "db", "--network", "back")
    serve(host, tools, "web", "-p", "80")
    assert looks(host, "web", "db") == set()
    host.ok("network", "connect", "back", "web", "--alias", "front", "--ip", "10.99.77.9")
    assert addresses(host, "web")["eth1"] == "10.99.77.9"
    assert asks(host, "web", "db") == "db"
    assert looks(host, "db", "front") == {"10.99.77.9"}
    assert asks(host, "db", "front") == "web"
    [port] = host.json("inspect", "web")["ports"]
    host.ok("network", "disconnect", "bridge", "web")
    assert list(addresses(host, "web")) == ["eth1"]
    assert asks(host, "web", "db") == "db"
    assert [port] == host.json("inspect", "web")["ports"]
    host.ok("update", "--pids-limit", "500", "web")
    host.ok("fork", "web", "--name", "twin")
    assert addresses(host, "twin").keys() == {"eth0"}
    assert asks(host, "twin", "db") == "db"
    assert addresses(host, "twin")["eth0"] != addresses(host, "web")["eth1"]
    host.ok("rm", "-f", "twin")
    host.ok("network", "connect", "default", "web")
    assert sorted(addresses(host, "web")) == ["eth0", "eth1"]
    host.ok("network", "disconnect", "back", "web")
    assert looks(host, "web", "db") == set()
    assert looks(host, "db", "web") == set()
    assert host("network", "disconnect", "back", "web").code == 1
    host.ok("network", "disconnect", "-f", "back", "web")


def test_connections_survive_stop_and_start(host: Sublet, tools: str) -> None:
    host.ok("network", "create", "back")
    serve(host, tools, "db", "--network", "back", "--network-alias", "store")
    serve(host, tools, "web")
    host.ok("stop", "-t", "0", "web")
    host.ok("network", "connect", "back", "web", "--alias", "front")
    before = host.json("network", "inspect", "back")
    host.ok("start", "web")
    host.ok("restart", "-t", "0", "db")
    for name in ("web", "db"):
        listens(host, name)
    after = host.json("network", "inspect", "back")
    assert [row["address"] for row in after["instances"]] == [
        row["address"] for row in before["instances"]
    ]
    assert sorted(addresses(host, "web")) == ["eth0", "eth1"]
    assert asks(host, "web", "store") == "db"
    assert asks(host, "db", "front") == "web"
    host.ok("rename", "db", "depot")
    assert asks(host, "web", "depot") == "db"
    eventually(lambda: looks(host, "web", "db") == {after["instances"][0]["address"]}, "hostname")
    host.ok("stop", "-t", "0", "web")
    host.ok("network", "disconnect", "default", "web")
    host.ok("start", "web")
    assert sorted(addresses(host, "web")) == ["eth1"]


def test_connections_survive_the_daemon(own: Sublet, base_file: Path) -> None:
    own.ok("network", "create", "back", "--label", "team=x")
    own.ok("run", "-d", "--name", "a", "--network", "back", "debian:bookworm", "sleep", "600")
    own.ok("run", "-d", "--name", "b", "debian:bookworm", "sleep", "600")
    own.ok("network", "connect", "back", "b", "--alias", "bee")
    before = own.json("network", "inspect", "back")
    own.kill_daemon()
    assert own.json("network", "inspect", "back") == before
    assert looks(own, "a", "bee") == looks(own, "a", "b") != set()
    assert looks(own, "b", "a") == {before["instances"][0]["address"]}
    assert own("network", "rm", "back").code == 1
    own.ok("network", "disconnect", "back", "a")
    own.ok("rm", "-f", "a", "b")
    own.ok("network", "rm", "back")
    assert [row["name"] for row in own.json("network", "ls", "--json")] == ["default"]


def test_an_internal_network_has_no_way_out(host: Sublet, tools: str) -> None:
    host.ok("network", "create", "inner", "--internal")
    serve(host, tools, "web", "-p", "80")
    serve(host, tools, "a", "--network", "inner")
    serve(host, tools, "b", "--network", "inner")
    assert asks(host, "a", "b") == "b"
    assert "default" not in host.ok("exec", "a", "ip", "route")
    gateway = host.json("network", "inspect", "inner")["gateway"]
    add = ("ip", "route", "add", "default", "via", gateway)
    host.ok("run", "--rm", "--network", "inner", "--cap-add", "NET_ADMIN", tools, *add)
    assert looks(host, "a", "deb.debian.org") == set(), "nor by names"
    assert asks(host, "a", host.json("inspect", "web")["address"]) == ""


def test_no_network(host: Sublet, tools: str) -> None:
    found = json.loads(host.ok("run", "--rm", "--network", "none", tools, "ip", "-j", "addr"))
    assert [row["ifname"] for row in found] == ["lo"]
    assert "UP" in found[0]["flags"]


def test_the_hosts_network(host: Sublet, tools: str) -> None:
    run = ("run", "--rm", "--network", "host", "--cap-add", "NET_ADMIN", tools)
    inside = json.loads(host.ok(*run, "ip", "-j", "link"))
    seen = host.ok(*run, "ls", "/sys/class/net").split()
    assert {row["ifname"] for row in inside} >= {"lo", "eth0"} <= set(seen)
    assert host(*run, "ip", "link", "set", "lo", "mtu", "1400").code != 0
    assert host(*run, "bash", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward").code != 0
    assert host(*run, "bash", "-c", "echo 1400 > /sys/class/net/lo/mtu").code != 0
    refused(host, "run", "--network", "host", "-p", "80", tools, "true", says="ports")
    sysctl = ("--sysctl", "net.ipv4.ip_forward=0")
    refused(host, "run", "--network", "host", *sysctl, tools, "true", says="sysctls")


def test_the_hosts_network_without_link_local(host: Sublet, tools: str) -> None:
    """A cloud machine's credentials are at such an address."""
    place = ("169.254.77.78/32", "dev", "lo")
    subprocess.run(["ip", "addr", "add", *place], check=True)
    try:
        with socket.create_server(("169.254.77.78", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(server.getsockname(), timeout=3).close()
            connect = ("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/169.254.77.78/{port}")
            assert host("run", "--rm", "--network", "host", tools, *connect).code != 0
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            connect = ("timeout", "20", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}")
            assert host("run", "--rm", "--network", "host", tools, *connect).code == 0
    finally:
        subprocess.run(["ip", "addr", "del", *place], check=True)


def test_another_instances_network(host: Sublet, tools: str) -> None:
    serve(host, tools, "web")
    join = ("--network", "container:web", "--cap-add", "NET_ADMIN", tools)
    script = "exec 3<>/dev/tcp/127.0.0.1/80 && cat <&3 && ls /sys/class/net"
    assert host.ok("run", "--rm", *join, "bash", "-c", script).split() == ["web", "eth0", "lo"]
    assert host("run", "--rm", *join, "ip", "link", "set", "eth0", "down").code != 0
    host.ok("run", "-d", "--name", "side", *join, "sleep", "600")
    assert host.json("inspect", "side")["network"].startswith("container:")
    refused(host, "network", "connect", "default", "side", code=1, says="no network of its own")
    host.ok("rm", "-f", "web")
    assert host.ok("exec", "side", "echo", "on") == "on"
    refused(host, "run", "--network", "container:web", tools, "true", says="no instance")


def test_what_cannot_be(host: Sublet, tools: str) -> None:
    def no(*args: str, says: str, code: int = 1) -> None:
        refused(host, "network", *args, code=code, says=says)

    host.ok("network", "create", "one")
    no("create", "one", says="already")
    no("create", "host", says="meaning")
    no("create", "a/b", says="cannot name")
    no("create", "two", "--subnet", "10.0.0.0/33", says="not an IPv4 subnet")
    no("create", "two", "--subnet", "127.0.0.0/16", says="cannot be")
    taken = host.json("network", "inspect", "default")["subnet"]
    no("create", "two", "--subnet", taken, says="in use")
    no("create", "two", "--gateway", "10.9.9.1", says="needs its subnet")
    no("create", "two", "--subnet", "10.9.9.0/24", "--gateway", "10.9.8.1", says="no address of")
    no("rm", "default", says="cannot be removed")
    no("rm", "nosuch", says="There is no network")
    no("ls", "--filter", "colour=red", says="no filter")
    no("connect", "one", "nosuch", says="There is no instance")
    refused(host, "run", "--network", "nosuch", tools, "true", says="There is no network")
    alias = ("--network-alias", "deb.debian.org")
    refused(host, "run", "--network", "one", *alias, tools, "true", says="dot")


def test_listing(host: Sublet) -> None:
    made = host.ok("network", "create", "one", "--internal", "--label", "team=x")
    host.ok("network", "create", "two")
    rows = host.json("network", "ls", "--json")
    assert [row["name"] for row in rows] == ["default", "one", "two"]
    subnets = [IPv4Interface(row["subnet"]).network for row in rows]
    assert not any(a.overlaps(b) for a in subnets for b in subnets if a is not b)
    assert host.ok("network", "ls", "-q", "--filter", "label=team=x") == made
    assert host.ok("network", "ls", "-q", "-f", "internal=true", "-f", "name=on") == made
    assert "one" in host.ok("network", "ls")
    host.ok("network", "rm", "-f", "one", "nosuch")
    assert host.ok("network", "prune", "-f") == "two"


def test_a_port_of_one_network_is_reached_from_another(host: Sublet, tools: str) -> None:
    host.ok("network", "create", "one")
    serve(host, tools, "web", "-p", "80")
    serve(host, tools, "a", "--network", "one")
    [port] = host.json("inspect", "web")["ports"]
    rows = json.loads(host.ok("run", "--rm", "--network", "host", tools, "ip", "-j", "addr"))
    own = next(row["addr_info"][0]["local"] for row in rows if row["ifname"] == "eth0")
    script = f"exec 3<>/dev/tcp/{own}/{port['host_port']} && cat <&3"

    def answered() -> bool:
        return host("exec", "a", "timeout", "3", "bash", "-c", script).out == "web\n"

    eventually(answered, "the published port answers")
