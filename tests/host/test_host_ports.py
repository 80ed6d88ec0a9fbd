"""`--host-port`: a port of this host's loopback at the instance's own, and nobody else's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually


class Echo:
    """A service on this host's loopback that sends back what it gets, and counts who calls."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.listener = socket.socket(family)
        self.listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self.listener.listen()
        self.port: int = self.listener.getsockname()[1]
        self.open: set[socket.socket] = set()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.add(connection)
            threading.Thread(target=self._echo, args=[connection], daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            connection.close()
            self.open.discard(connection)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    service = Echo()
    yield service
    service.close()


def asking(port: int, host: str = "localhost") -> list[str]:
    """A command that asks the service and prints what it answers."""
    return ["bash", "-c", f"exec 3<>/dev/tcp/{host}/{port} && echo hello >&3 && head -1 <&3"]


def test_one_instance_reaches_one_port_of_the_host(sublet: Sublet, echo: Echo) -> None:
    other = Echo()
    try:
        sublet.ok("run", "-d", "--name", "a", "--host-port", str(echo.port), BASE, "sleep", "600")
        sublet.ok("run", "-d", "--name", "b", BASE, "sleep", "600")
        assert sublet.ok("exec", "a", *asking(echo.port)) == "hello"
        assert sublet.json("inspect", "a")["options"]["host_ports"] == [echo.port]
        assert sublet("exec", "a", *asking(other.port)).code != 0
        assert sublet("exec", "b", *asking(echo.port)).code != 0
        address = sublet.json("inspect", "a")["address"]
        assert sublet("exec", "b", *asking(echo.port, address)).code != 0
        assert not other.open
    finally:
        other.close()


def test_much_goes_through_whole_both_ways(sublet: Sublet, echo: Echo) -> None:
    script = (
        f"exec 3<>/dev/tcp/127.0.0.1/{echo.port}; head -c 20000000 /dev/zero >&3 & "
        f"head -c 20000000 <&3 | wc -c"
    )
    flags = ("--rm", "--network", "none", "--host-port", str(echo.port))
    assert sublet.ok("run", *flags, BASE, "bash", "-c", script) == "20000000"


def test_a_service_that_listens_by_ipv6_alone_is_found(sublet: Sublet) -> None:
    service = Echo(socket.AF_INET6)
    try:
        flags = ("--rm", "--host-port", str(service.port))
        assert sublet.ok("run", *flags, BASE, *asking(service.port)) == "hello"
    finally:
        service.close()


def test_it_survives_the_daemon_and_ends_with_the_instance(own: Sublet, echo: Echo) -> None:
    port = str(echo.port)
    own.ok("run", "-d", "--name", "a", "--host-port", port, BASE, "sleep", "600")
    own.kill_daemon()
    assert own.ok("exec", "a", *asking(echo.port)) == "hello"
    held = own.spawn("exec", "a", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3")
    eventually(lambda: echo.open, "a connection to the service")
    own.ok("stop", "-t", "0", "a")
    held.communicate(timeout=30)
    eventually(lambda: not echo.open, "the service's connection ended")
    own.ok("start", "a")
    assert own.ok("exec", "a", *asking(echo.port)) == "hello"


TAKES = """
use IO::Socket::INET; $| = 1;
until ($s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$ARGV[0]", Listen => 1)) {
    select undef, undef, undef, 0.05;
}
print "mine"; sleep 600;
"""


def test_a_program_that_takes_the_port_meanwhile_is_adopted(own: Sublet, echo: Echo) -> None:
    port = str(echo.port)
    own.ok("run", "-d", "--name", "a", "--host-port", port, BASE, "perl", "-e", TAKES, port)
    pid = own.json("inspect", "a")["pid"]
    own.kill_daemon()
    eventually(lambda: " 0A " in Path(f"/proc/{pid}/net/tcp").read_text(), "the port is taken")
    eventually(lambda: own.ok("logs", "a") == "mine", "it says so")
    own.ok("stop", "-t", "0", "a")
    assert own.json("inspect", "a")["state"] == "stopped"


def test_connections_are_bounded(sublet: Sublet, echo: Echo) -> None:
    script = f"""
for i in $(seq 140); do exec {{fd}}<>/dev/tcp/127.0.0.1/{echo.port} || exit 1; fds="$fds $fd"; done
n=0
for fd in $fds; do
  if printf 'x\\n' >&$fd 2>/dev/null && read -r -t 10 line <&$fd; then n=$((n+1)); fi
done
echo $n"""
    done = sublet("run", "--rm", "--host-port", str(echo.port), BASE, "bash", "-c", script)
    assert done.out.strip() == "128", done


def test_who_has_no_loopback_of_its_own_is_told(sublet: Sublet) -> None:
    for flags in (["--vm"], ["--network", "host"]):
        flags += ["--host-port", "80"]
        refused(sublet, "run", *flags, BASE, "true", says="--host-port")
    refused(sublet, "run", "--host-port", "0", BASE, "true", says="0 is not a port")
    refused(sublet, "run", "--host-port", "x", BASE, "true", says="'x' is not a port")


def test_namespaces_inside_are_for_who_asks(sublet: Sublet) -> None:
    """`--security-opt seccomp=user-namespaces`: a sandbox inside, without mounts and netlink."""
    asked = ("run", "--rm", "--security-opt", "seccomp=user-namespaces", BASE)
    inside = ("unshare", "--user", "--map-root-user", "--pid", "--net", "--ipc", "--fork")
    assert sublet.ok(*asked, *inside, "id", "-u") == "0"
    assert sublet("run", "--rm", BASE, *inside, "id", "-u").code != 0
    assert sublet(*asked, "unshare", "--user", "--mount", "true").code != 0
    assert sublet(*asked, "unshare", "--user", "--time", "true").code != 0
    netlink = "use Socket; socket(my $s, 16, 3, $ARGV[0]) or print 'refused'"
    for protocol in ("0", "12"):  # routes and links; nftables
        assert sublet.ok(*asked, "perl", "-e", netlink, protocol) == "refused"
    options = (
        "use Socket; socket(my $s, 2, 1, 0) or die; for ([1, 2, 1], [6, 1, 1], [0, 2, 64],"
        "[0, 64, 1], [0, 128, 1]) { my ($l, $o, $v) = @$_;"
        "print setsockopt($s, $l, $o, pack 'i', $v) ? 'y' : $!{ENOSYS} ? 'n' : '?' }"
    )
    assert sublet.ok(*asked, "perl", "-MErrno", "-e", options) == "yyynn"
