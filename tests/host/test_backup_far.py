"""Repositories that are not a directory of this host: SFTP, against a real sshd on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually


@dataclass(frozen=True)
class Nas:
    """An sshd that takes one key and does SFTP alone."""

    place: Path
    port: int

    @property
    def repository(self) -> str:
        return f"sftp:nas:{self.place}/repository"


def made_key(file: Path) -> str:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(argv, check=True, capture_output=True)
    return file.with_suffix(".pub").read_text()


@pytest.fixture
def nas() -> Iterator[Nas]:
    place = Path(tempfile.mkdtemp(prefix="nas-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made_key(place / "host")
    (place / "authorized").write_text(made_key(place / "client"))
    (place / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {place}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {place}/authorized\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nSubsystem sftp internal-sftp\nForceCommand internal-sftp\n"
    )
    os.makedirs("/run/sshd", exist_ok=True)
    log = (place / "log").open("w")
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", str(place / "sshd_config")]
    process = subprocess.Popen(argv, stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(answers, "sshd answers")
    yield Nas(place, port)
    process.terminate()
    process.wait()
    log.close()
    subprocess.run(["rm", "-r", str(place)], check=True)


def knows(sublet: Sublet, nas: Nas, host_key: str) -> None:
    """Give a daemon the way to the NAS."""
    ssh = sublet.root / "backup.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "key").write_bytes((nas.place / "client").read_bytes())
    (ssh / "key").chmod(0o600)
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{nas.port} {host_key}\n")
    (ssh / "config").write_text(
        f"Host nas\n HostName 127.0.0.1\n Port {nas.port}\n User root\n IdentityFile {ssh}/key\n"
        f" UserKnownHostsFile {ssh}/known_hosts\n StrictHostKeyChecking yes\n"
    )


def test_over_sftp(own: Sublet, nas: Nas) -> None:
    host_key = " ".join((nas.place / "host.pub").read_text().split()[:2])
    own.ok("run", "-d", "--name", "far", "-v", "/data", BASE, "sleep", "inf")
    own.ok("exec", "far", "sh", "-c", "echo 1 > /data/a; echo 2 > /root/b; rm /etc/issue")
    unknown = own("backup", "far", "--repo", nas.repository)
    assert unknown.code == 1
    assert "cannot be opened" in unknown.err
    assert own.json("audit", "--json") == []
    knows(own, nas, made_other_key(nas))
    stranger = own("backup", "far", "--repo", nas.repository)
    assert stranger.code == 1  # not the host that we know
    knows(own, nas, host_key)
    own.ok("daemon", "--stop")
    own.extra["SUBLET_BACKUP_REPOSITORY"] = nas.repository
    first = own.ok("backup", "far")
    own.ok("exec", "far", "sh", "-c", "echo 3 > /data/a")
    second = own.ok("backup", "far")
    assert own.ok("backups", "-q").split() == [second, first]
    own.ok("rm", "-f", "-v", "far")
    own.ok("restore", first)
    assert own.ok("exec", "far", "cat", "/data/a", "/root/b") == "1\n2"
    assert own("exec", "far", "test", "-e", "/etc/issue").code == 1
    own.ok("rm", "-f", "-v", "far")
    own.ok("backup", "prune", "--keep-last", "1", "-f")
    assert own.ok("backups", "-q").split() == [second]
    own.ok("backup", "verify")


def made_other_key(nas: Nas) -> str:
    return " ".join(made_key(nas.place / "other").split()[:2])
