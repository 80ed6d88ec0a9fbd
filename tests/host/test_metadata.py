"""The metadata service at 169.254.169.254, as containers find it, good ones and hostile ones."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import datetime

import pytest
from clilab import PROGRAMS, small_tree
from conftest import Sublet, eventually
from netlab import sh

from sublet.drivers import linux
from sublet.drivers.network.identity import Identity

TTL, TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
META = "latest/meta-data"


@pytest.fixture(scope="session")
def tools_file(shared: Sublet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with curl."""
    tree = tmp_path_factory.mktemp("curl") / "tree"
    small_tree(tree, (*PROGRAMS, "curl", "bash"))
    file = tree.with_name("curl.sif")
    shared.ok("pack", str(tree), "-o", str(file))
    return str(file)


@pytest.fixture
def host(sublet: Sublet) -> Iterator[Sublet]:
    """The command line; networks are removed afterwards."""
    yield sublet
    if ids := sublet.ok("ps", "-aq").split():
        sublet.ok("rm", "-f", *ids)
    sublet.ok("network", "prune", "-f")


def start(host: Sublet, image: str, name: str, *flags: str) -> str:
    """An instance that waits; its id."""
    return host.ok("run", "-d", "--name", name, *flags, image, "sleep", "infinity")


def curl(
    host: Sublet,
    name: str,
    path: str,
    *flags: str,
    url: str = "169.254.169.254",
    patience: str = "10",
) -> str:
    """The status of the answer, and what it says; 000 when nothing comes."""
    show = ("-s", "-m", patience, "-w", "\n%{http_code}", f"http://{url}/{path}")
    said, _, code = host("exec", name, "curl", *flags, *show).out.rstrip("\n").rpartition("\n")
    return code if code != "200" else f"200 {said}"


def token(host: Sublet, name: str, seconds: int = 600, patience: str = "10") -> str:
    put = ("-X", "PUT", "-H", f"{TTL}: {seconds}")
    given = curl(host, name, "latest/api/token", *put, patience=patience)
    assert given.startswith("200 "), given
    return given[4:]


def told(host: Sublet, name: str, path: str) -> str:
    """What an instance is told with a token of its own."""
    said = curl(host, name, path, "-H", f"{TOKEN}: {token(host, name)}")
    return said.removeprefix("200 ")


def test_version_2(host: Sublet, tools_file: str) -> None:
    instance_id = start(host, tools_file, "one", "--label", "team=blue", "--hostname", "web")
    row = host.json("inspect", "one")
    good = ("-H", f"{TOKEN}: {token(host, 'one')}")
    for path, said in (
        (f"{META}/instance-id", f"i-{instance_id}"),
        (f"{META}/ami-id", f"ami-{row['digest'].removeprefix('sha256:')[:17]}"),
        (f"{META}/local-ipv4", row["address"]),
        (f"{META}/hostname", "web"),
        (f"{META}/instance-life-cycle", "on-demand"),
        (f"{META}/tags/instance/team", "blue"),
        ("latest/", "dynamic\nmeta-data"),
    ):
        assert curl(host, "one", path, *good) == f"200 {said}", path
    mac = curl(host, "one", f"{META}/mac", *good)[4:]
    assert mac == host.ok("exec", "one", "cat", "/sys/class/net/eth0/address")
    listed = curl(host, "one", f"{META}/network/interfaces/macs/", *good)
    assert listed == f"200 {mac}/"
    document = curl(host, "one", "latest/dynamic/instance-identity/document", *good)[4:]
    assert json.loads(document)["privateIp"] == row["address"]


def test_what_is_refused(host: Sublet, tools_file: str) -> None:
    start(host, tools_file, "one")
    good = ("-H", f"{TOKEN}: {token(host, 'one')}")
    put = ("-X", "PUT")
    for code, path, *flags in (
        ("401", f"{META}/"),
        ("401", "latest/nowhere"),
        ("401", f"{META}/", "-H", f"{TOKEN}: nonsense"),
        ("404", "latest/user-data", *good),
        ("404", f"{META}/spot/instance-action", *good),
        ("404", f"{META}/spot/termination-time", *good),
        ("404", f"{META}/events/recommendations/rebalance", *good),
        ("404", "latest/nowhere", *good),
        ("400", "latest/api/token", *put),
        ("400", "latest/api/token", *put, "-H", f"{TTL}: 0"),
        ("400", "latest/api/token", *put, "-H", f"{TTL}: 21601"),
        ("400", "latest/api/token", *put, "-H", f"{TTL}: ten"),
        ("403", "latest/api/token", *put, "-H", f"{TTL}: 60", "-H", "X-Forwarded-For: 192.0.2.1"),
        ("405", "latest/api/token", *good),
        ("405", f"{META}/", *put, *good),
        ("405", f"{META}/", "-X", "DELETE", *good),
        ("400", f"{META}/", "-H", f"X-Long: {'x' * 20000}"),
        ("400", f"{META}/", "-d", "x" * 2000),
    ):
        assert curl(host, "one", path, *flags) == code, (path, flags)
    brief = ("-H", f"{TOKEN}: {token(host, 'one', 1)}")
    eventually(lambda: curl(host, "one", f"{META}/mac", *brief) == "401", "the token is over")


def test_each_sees_itself_alone(host: Sublet, tools_file: str) -> None:
    host.ok("network", "create", "front")
    host.ok("network", "create", "inner", "--internal")
    ids = {name: start(host, tools_file, name) for name in ("one", "two")}
    ids["inside"] = start(host, tools_file, "inside", "--network", "inner")
    host.ok("create", "--name", "both", "--network", "inner", tools_file, "sleep", "infinity")
    host.ok("network", "connect", "front", "both")
    host.ok("start", "both")
    ids["both"] = host.json("inspect", "both")["id"]
    for name, own in ids.items():
        assert told(host, name, f"{META}/instance-id") == f"i-{own}", name
    other = ("-H", f"{TOKEN}: {token(host, 'two')}")
    assert curl(host, "one", f"{META}/instance-id", *other) == "401"
    macs = told(host, "both", f"{META}/network/interfaces/macs/").split()
    assert len(macs) == 2
    numbers = [
        told(host, "both", f"{META}/network/interfaces/macs/{mac}device-number") for mac in macs
    ]
    assert sorted(numbers) == ["0", "1"]
    start(host, tools_file, "guest", "--network", "container:one")
    assert told(host, "guest", f"{META}/instance-id") == f"i-{ids['one']}", "its interfaces' owner"
    start(host, tools_file, "bare", "--network", "none")
    start(host, tools_file, "open", "--network", "host")
    for name in ("bare", "open"):
        assert curl(host, name, f"{META}/", patience="2") == "000"
    host.ok("network", "disconnect", "front", "both")
    assert told(host, "both", f"{META}/network/interfaces/macs/").split() == macs[1:]


def test_no_other_way_leads_there(host: Sublet, tools_file: str) -> None:
    host.ok("network", "create", "front")
    start(host, tools_file, "one")
    token(host, "one")
    port, gateway = heard(host)
    foreign = host.json("network", "inspect", "front")["gateway"]
    for url in (f"{gateway}:{port}", f"{foreign}:{port}", "169.254.169.254:22", "169.254.169.253"):
        assert curl(host, "one", f"{META}/", url=url, patience="0.5") == "000", url
    from_host = subprocess.run(["curl", "-s", "-m", "20", f"http://{gateway}:{port}/"], check=False)
    assert from_host.returncode in (7, 56), "nobody's address: the connection is reset"


def heard(host: Sublet) -> tuple[int, str]:
    """Where the default network's calls lead."""
    identity = Identity.of(host.run_dir)
    listing = sh("nft", "-j", "list", "map", "inet", identity.table, "metadata")
    [found] = [row["map"] for row in json.loads(listing)["nftables"] if "map" in row]
    return dict(found["elem"])[identity.bridge], host.json("network", "inspect", "bridge")[
        "gateway"
    ]


@contextlib.contextmanager
def within(host: Sublet, name: str) -> Iterator[None]:
    """The thread is in the instance's network, with the host's rights there."""
    pid = host.json("inspect", name)["pid"]
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        with linux.entered(fd, linux.CLONE_NEWNET, "net"):
            yield
    finally:
        os.close(fd)


def test_a_token_does_not_go_further_than_one_hop(host: Sublet, tools_file: str) -> None:
    start(host, tools_file, "one")
    with within(host, "one"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.settimeout(20)
        token(host, "one")
        assert ttl_of(raw, b"Token-Ttl") == 1
        curl(host, "one", f"{META}/")
        assert ttl_of(raw, b"401 - ") > 1, "a refusal may"


def ttl_of(raw: socket.socket, text: bytes) -> int:
    """The time to live of the packet from the service with this text (RFC 791)."""
    while True:
        packet = raw.recv(65536)
        if socket.inet_ntoa(packet[12:16]) == "169.254.169.254" and text in packet:
            return packet[8]


def test_an_address_cannot_be_taken(host: Sublet, tools_file: str) -> None:
    for name in ("one", "two"):
        start(host, tools_file, name)
    address = host.json("inspect", "two")["address"]
    pid = host.json("inspect", "one")["pid"]
    sh("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "addr", "add", f"{address}/32", "dev", "eth0")
    flags = ("-X", "PUT", "-H", f"{TTL}: 60")
    assert (
        curl(host, "one", "latest/api/token", *flags, "--interface", address, patience="2") == "000"
    )
    token(host, "two")
    eventually(  # the kernel inside has first to give up on the address
        lambda: curl(host, "one", "latest/api/token", *flags).startswith("200 "), "an answer"
    )


def test_a_flood_starves_nobody_else(host: Sublet, tools_file: str) -> None:
    """One tenant holds all connections that it gets, half asked, and asks for more all the time."""
    for name in ("bad", "good"):
        start(host, tools_file, name)
    before = host.json("inspect", "bad")["state"]
    held: list[socket.socket] = []
    with within(host, "bad"):
        held = [socket.socket() for _ in range(200)]
    with contextlib.ExitStack() as stack:
        for sock in held:
            stack.enter_context(sock)
            sock.setblocking(False)
            sock.connect_ex(("169.254.169.254", 80))
        eventually(lambda: connected(held) >= 8, "the flood is there")
        for sock in held:
            with contextlib.suppress(OSError):
                sock.send(b"GET /latest/meta-data/ HTTP/1.1\r\nX: ")
        loop = "while :; do curl -s -m 1 http://169.254.169.254/[1-50]; done"
        flood = host.spawn("exec", "bad", "bash", "-c", loop)
        for _ in range(5):
            token(host, "good", patience="4")
        assert connected(held) <= 8, "one tenant has so many at once"
        flood.kill()
        flood.communicate()
    assert host.json("inspect", "bad")["state"] == before


def connected(sockets: list[socket.socket]) -> int:
    found = 0
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.getpeername()
            found += 1
    return found


def test_a_notice(host: Sublet, tools_file: str) -> None:
    start(host, tools_file, "one", "--spot")
    start(host, tools_file, "two", "--spot", "--on-reclaim", "stop")
    assert told(host, "one", f"{META}/instance-life-cycle") == "spot"
    assert told(host, "one", f"{META}/spot/") == "404"
    host.ok("reclaim", "one", "two")
    action = json.loads(told(host, "one", f"{META}/spot/instance-action"))
    assert action["action"] == "terminate"
    assert told(host, "one", f"{META}/spot/termination-time") == action["time"]
    noticed = json.loads(told(host, "one", f"{META}/events/recommendations/rebalance"))
    given, ends = (datetime.fromisoformat(t) for t in (noticed["noticeTime"], action["time"]))
    assert (ends - given).total_seconds() in (119, 120, 121)
    assert json.loads(told(host, "two", f"{META}/spot/instance-action"))["action"] == "stop"
    assert told(host, "two", f"{META}/spot/termination-time") == "404"


def test_it_is_mended_and_outlives_the_daemon(own: Sublet, tools_file: str) -> None:
    instance_id = start(own, tools_file, "one")
    good = ("-H", f"{TOKEN}: {token(own, 'one')}")
    table = Identity.of(own.run_dir).table
    sh("nft", "delete", "table", "inet", table)
    said = f"200 i-{instance_id}"
    path = f"{META}/instance-id"
    eventually(lambda: curl(own, "one", path, *good) == said, "the rules are back")
    own.kill_daemon()
    own.extra["SUBLET_METADATA_V1"] = "true"
    own.ok("ps")
    assert curl(own, "one", path, *good) == said, "the token is good for the next daemon, too"
    assert curl(own, "one", path) == said, "the owner allows version 1 now"
    assert curl(own, "one", path, "-H", f"{TOKEN}: bad") == "401"
    assert (own.run_dir / "metadata.key").stat().st_mode & 0o777 == 0o600
