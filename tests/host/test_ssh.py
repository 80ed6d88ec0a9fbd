"""`sublet ssh`: the host's SSH client, a key for one session, host keys that are checked."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import context, end, refused
from conftest import BASE, Sublet, eventually
from imagelab import free_port

KEYS = "/root/.ssh/authorized_keys"
TEXT = f"""FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends openssh-server \
 && useradd -m -s /bin/sh bob
CMD ["sh", "-c", "ssh-keygen -A && mkdir -p /run/sshd && exec /usr/sbin/sshd -D"]
"""


@pytest.fixture(scope="module")
def sshd(shared: Sublet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with an sshd, which makes its host keys when it starts."""
    shared.ok("build", context(tmp_path_factory.mktemp("sshd") / "c", TEXT), "-t", "sshd", "-q")
    return "sshd"


@pytest.fixture
def web(sublet: Sublet, sshd: str) -> Iterator[str]:
    before = set(Path("/dev/shm").glob("sublet-ssh-*"))
    sublet.ok("run", "-d", "--name", "web", sshd)
    yield "web"
    assert set(Path("/dev/shm").glob("sublet-ssh-*")) == before


def test_a_command_runs_and_no_key_stays(sublet: Sublet, web: str) -> None:
    code = 'echo "$SSH_CONNECTION"; cat; echo sorry >&2; exit 7'
    done = sublet("ssh", web, code, input="typed\n")
    address = sublet.json("inspect", web)["address"]
    assert done.code == 7
    assert done.out.splitlines()[0].endswith(f" {address} 22")
    assert done.out.splitlines()[1] == "typed"
    assert "sorry" in done.err
    assert sublet("exec", web, "ls", "-d", "/root/.ssh").code == 2  # it was not there before


def test_while_it_lasts_the_key_has_an_end_and_those_of_others_stay(
    sublet: Sublet, web: str
) -> None:
    for others in ("# mine\nssh-ed25519 AAAA me\n", "ssh-ed25519 AAAA without a line's end"):
        sublet.ok("exec", "-i", web, "sh", "-c", f"mkdir -p /root/.ssh; cat >{KEYS}", input=others)
        meanwhile = sublet.ok("ssh", web, "cat", KEYS).splitlines()
        assert meanwhile[:-1] == others.splitlines()
        assert meanwhile[-1].startswith('expiry-time="20')
        assert " sublet-ssh-" in meanwhile[-1]
        assert sublet.ok("exec", web, "cat", KEYS) == others.strip()


def test_another_user_logs_in_with_the_rights_of_that_user(sublet: Sublet, web: str) -> None:
    assert sublet.ok("ssh", "-l", "bob", web, "id", "-un") == "bob"
    assert sublet("exec", web, "ls", "-d", "/home/bob/.ssh").code == 2
    refused(
        sublet, "ssh", "-l", "www-data", web, "true", code=1, says="not take a key for www-data"
    )
    assert "nobody-here" in refused(sublet, "ssh", "-l", "nobody-here", web, code=1).err


def test_a_host_that_shows_another_key_is_refused(sublet: Sublet, web: str) -> None:
    """The keys are told over exec; whoever stands in between, here the sshd, shows others."""
    sublet.ok("ssh", web, "true")
    script = """rm /etc/ssh/ssh_host_*.pub
    ssh-keygen -q -t ed25519 -N '' -f /tmp/other
    mv /tmp/other.pub /etc/ssh/ssh_host_ed25519_key.pub"""
    sublet.ok("exec", web, "sh", "-c", script)
    done = sublet("ssh", web, "true")
    assert done.code == 255
    assert "Host key verification failed" in done.err


def test_a_port_is_forwarded_until_it_is_ended(sublet: Sublet, web: str) -> None:
    port = free_port()
    forwarding = sublet.spawn("ssh", web, "--", "-N", "-L", f"127.0.0.1:{port}:localhost:22")

    def banner() -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as opened:
                return opened.recv(8)
        except OSError:
            return b""

    eventually(lambda: banner() == b"SSH-2.0-", "the forwarded port answers")
    end(forwarding, signal.SIGTERM)
    assert banner() == b""
    eventually(lambda: sublet("exec", web, "ls", KEYS).code == 2, "the key is taken out")


def test_what_cannot_be_logged_in_to_is_said(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "bare", BASE, "sleep", "100")
    refused(sublet, "ssh", "bare", code=1, says="bare has no sshd")
    sublet.ok("run", "-d", "--name", "alone", "--network", "none", BASE, "sleep", "100")
    refused(sublet, "ssh", "alone", code=1, says="has no address of its own")
    sublet.ok("kill", "bare")
    sublet.ok("wait", "bare")
    refused(sublet, "ssh", "bare", code=1, says="bare is stopped, not running")
    refused(sublet, "ssh", "nothing", code=1, says="no instance 'nothing'")


def test_an_instance_of_another_network_is_reached_too(sublet: Sublet, sshd: str) -> None:
    sublet.ok("network", "create", "--internal", "inner")
    sublet.ok("run", "-d", "--name", "deep", "--network", "inner", sshd)
    assert sublet.ok("ssh", "deep", "hostname") == sublet.json("inspect", "deep")["id"]
    sublet.ok("rm", "-f", "deep")
    sublet.ok("network", "rm", "inner")
