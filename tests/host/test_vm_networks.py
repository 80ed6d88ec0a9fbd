"""VMs and their networks: ports, names, several cables, none; and volumes, which are disks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import refused
from conftest import Sublet, eventually
from imagelab import free_port
from vmhost import IMAGE, LOOP, SMALL, daemon, pack_busybox, row, state

SERVE = ("sh", "-c", "mkdir /www; hostname > /www/name; exec httpd -f -h /www")


@pytest.fixture(scope="module")
def net(busybox_file: Path) -> Iterator[Sublet]:
    """A daemon with two networks."""
    with daemon(busybox_file) as sublet:
        for name in ("front", "back"):
            sublet.ok("network", "create", name)
        yield sublet
        for row in sublet.json("ps", "-a", "--json"):
            sublet.ok("rm", "-f", row["name"])
        sublet.ok("network", "rm", "front", "back")


@pytest.fixture(autouse=True)
def emptied(net: Sublet) -> Iterator[None]:
    yield
    net.clean()


def start(net: Sublet, name: str, *flags: str, vm: bool = True) -> str:
    kind = SMALL if vm else ()
    net.ok("run", "-d", *kind, "--name", name, "--hostname", name, *flags, IMAGE, *SERVE)
    return name


def reaches(net: Sublet, source: str, target: str) -> bool:
    """Whether the web server of one answers the other, and with its own name."""
    ask = f"printf 'GET /name HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {target} 80"
    done = net("exec", source, "sh", "-c", ask)
    return done.code == 0 and done.out.splitlines()[-1:] == [target]


def test_vms_and_containers_on_one_network_reach_each_other_by_name(net: Sublet) -> None:
    for name, vm in (("one", True), ("two", True), ("box", False)):
        start(net, name, "--network", "front", vm=vm)
    start(net, "far", "--network", "back")
    for source in ("one", "two", "box"):
        for target in ("one", "two", "box"):
            eventually(lambda s=source, t=target: reaches(net, s, t), f"{source} to {target}", 60)
    assert not reaches(net, "far", "one")
    address = str(row(net, "one")["address"])
    assert net("exec", "far", "ping", "-c", "1", "-W", "1", address).code == 1


def test_two_networks(net: Sublet) -> None:
    flags = ("--network", "front", "--hostname", "both")
    net.ok("create", *SMALL, "--name", "both", *flags, IMAGE, *SERVE)
    net.ok("network", "connect", "back", "both")
    net.ok("start", "both")
    start(net, "one", "--network", "front", vm=False)
    start(net, "two", "--network", "back")
    links = net.ok("exec", "both", "ls", "/sys/class/net").split()
    assert links == ["eth0", "eth1", "lo"]
    for other in ("one", "two"):
        eventually(lambda o=other: reaches(net, "both", o), f"both to {other}", 60)
        eventually(lambda o=other: reaches(net, o, "both"), f"{other} to both", 60)
    assert not reaches(net, "one", "two")
    refused(net, "network", "connect", "back", "two", code=1)


def test_cables_are_changed_while_it_is_stopped(net: Sublet) -> None:
    start(net, "one", "--network", "front")
    refused(net, "network", "connect", "back", "one", code=1, says="one")
    net.ok("stop", "-t", "0", "one")
    net.ok("network", "connect", "back", "one")
    net.ok("start", "one")
    assert net.ok("exec", "one", "ls", "/sys/class/net").split() == ["eth0", "eth1", "lo"]


def test_no_network(net: Sublet) -> None:
    net.ok("run", "-d", *SMALL, "--name", "alone", "--network", "none", IMAGE, *LOOP)
    assert net.ok("exec", "alone", "ls", "/sys/class/net").split() == ["lo"]
    net.ok("hibernate", "alone")
    net.ok("wake", "alone")
    net.ok("exec", "alone", "true")


def test_published_ports(net: Sublet) -> None:
    tcp, udp = free_port(), free_port()
    serve = ("sh", "-c", f"mkdir /www; echo hello > /www/name; httpd -h /www; {LOOP[2]}")
    ports = ("-p", f"127.0.0.1:{tcp}:80", "-p", f"127.0.0.1:{udp}:5353/udp")
    net.ok("run", "-d", *SMALL, "--name", "web", *ports, IMAGE, *serve)
    eventually(lambda: b"hello" in asked(tcp), "the port answers", 60)
    before = unwanted(net, "web")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"datagram", ("127.0.0.1", udp))
    eventually(lambda: unwanted(net, "web") == before + 1, "the datagram arrives", 60)
    net.ok("restart", "-t", "0", "web")
    eventually(lambda: b"hello" in asked(tcp), "the port answers again", 60)
    net.ok("rm", "-f", "web")
    assert asked(tcp) == b""


def unwanted(net: Sublet, name: str) -> int:
    """Datagrams that have come for a port at which nobody listens."""
    lines = net.ok("exec", name, "grep", "Udp:", "/proc/net/snmp").splitlines()
    return int(dict(zip(*(line.split() for line in lines), strict=True))["NoPorts"])


def asked(port: int) -> bytes:
    with socket.socket() as client:
        client.settimeout(2)
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /name HTTP/1.0\r\n\r\n")
            return client.makefile("rb").read()
        except OSError:
            return b""


def test_volumes_outlive_vms_and_belong_to_one_at_a_time(net: Sublet) -> None:
    run = ("run", "--rm", *SMALL, "-v", "keep:/data", IMAGE, "sh", "-c")
    assert net.ok(*run, "cat /data/seed; echo more > /data/more") == "filled"
    assert net.ok(*run, "rm /data/seed; cat /data/more; ls /data") == "more\nmore"
    assert net.ok(*run, "ls /data") == "more"  # what the image has is copied once
    net.ok("run", "-d", *SMALL, "--name", "holder", "-v", "keep:/data:ro", IMAGE, *LOOP)
    assert net("exec", "holder", "touch", "/data/x").code == 1
    refused(net, *run, "true", says="in use by holder")
    refused(net, "run", "-v", "keep:/data", IMAGE, "true", says="disk of VMs")
    assert net("volume", "rm", "keep").code == 1
    net.ok("rm", "-f", "holder")
    net.ok("run", "--name", "other", "-v", "dir:/d", IMAGE, "touch", "/d/a")
    refused(net, "run", *SMALL, "-v", "dir:/d", IMAGE, "true", says="a VM needs a disk")
    net.ok("rm", "-f", "other")
    net.ok("volume", "rm", "keep", "dir")


def test_a_volume_of_a_size(net: Sublet) -> None:
    net.ok("volume", "create", "--size", "80m", "small")
    fill = "dd if=/dev/zero of=/v/fill bs=1M count=200 2>&1 | grep -c 'No space'; rm /v/fill"
    assert net.ok("run", "--rm", *SMALL, "-v", "small:/v", IMAGE, "sh", "-c", fill) == "1"
    net.ok("volume", "rm", "small")


def test_volumes_of_the_image(net: Sublet, tmp_path: Path) -> None:
    net.ok("import", str(pack_busybox(tmp_path, "/data")), "--trust", "-t", "holding")
    script = "cat /data/seed; stat -c %d / /data | sort -u | wc -l; echo x > /data/x"
    net.ok("run", "-d", *SMALL, "--name", "box", "holding", "sh", "-c", f"{script}; sleep 1000")
    eventually(lambda: net.ok("logs", "box").split() == ["filled", "2"], "it has its volume")
    assert len(net.json("volume", "ls", "--json")) == 1
    net.ok("fork", "box", "--name", "twin")
    assert net.ok("exec", "twin", "cat", "/data/x") == "x"
    net.ok("exec", "twin", "sh", "-c", "echo y > /data/x")
    assert net.ok("exec", "box", "cat", "/data/x") == "x"
    assert state(net, "twin") == "running"
    net.ok("rm", "-f", "-v", "box", "twin")
    assert net.json("volume", "ls", "--json") == []
    net.ok("rmi", "holding")


def test_a_vm_asks_who_it_is(net: Sublet, tmp_path: Path) -> None:
    """On a network without a way out, which a guest from a template is told of; and so its fork."""
    (tmp_path / "user-data").write_text("#!/bin/sh\necho hello\n")
    net.ok("network", "create", "inner", "--internal")
    given = ("--user-data", str(tmp_path / "user-data"), "--network", "inner")
    vm = net.ok("run", "-d", *SMALL, "--name", "one", *given, "--spot", IMAGE, *LOOP)
    token = metadata(net, "one", "PUT /latest/api/token", "token-ttl-seconds: 60")[1]
    good = f"token: {token}"
    assert metadata(net, "one", "GET /latest/meta-data/instance-id", good) == ("200", f"i-{vm}")
    assert metadata(net, "one", "GET /latest/user-data", good) == ("200", "#!/bin/sh\necho hello")
    assert metadata(net, "one", "GET /latest/meta-data/spot/instance-action", good)[0] == "404"
    net.ok("reclaim", "one")
    said = metadata(net, "one", "GET /latest/meta-data/spot/instance-action", good)[1]
    assert '"action": "terminate"' in said
    fork = net.ok("fork", "one", "--name", "two")
    assert metadata(net, "two", "GET /latest/meta-data/instance-id", good)[0] == "401", (
        "not its own"
    )
    token = metadata(net, "two", "PUT /latest/api/token", "token-ttl-seconds: 60")[1]
    said = metadata(net, "two", "GET /latest/meta-data/instance-id", f"token: {token}")[1]
    assert said == f"i-{fork}"
    net.ok("rm", "-f", "one", "two")
    net.ok("network", "rm", "inner")


def metadata(net: Sublet, name: str, what: str, header: str) -> tuple[str, str]:
    """The status of the metadata service's answer, and what it says."""
    request = f"{what} HTTP/1.0\\r\\nX-aws-ec2-metadata-{header}\\r\\n\\r\\n"
    ask = f"printf '{request}' | nc -w 20 169.254.169.254 80"
    said = net.ok("exec", name, "sh", "-c", ask).replace("\r", "")
    head, _, body = said.partition("\n\n")
    return head.split()[1], body
