"""Repositories that are not a directory of this host: SFTP, against a real sshd on loopback, and
S3, against a server of our own that checks every signature."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3lab
from clilab import assert_nothing_left, refused
from conftest import BASE, Sublet, eventually
from imagelab import free_port


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
    port = free_port()
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


# S3


@pytest.fixture
def bucket() -> Iterator[s3lab.S3]:
    with s3lab.serving() as server:
        yield server


@pytest.fixture
def other(base_file: Path) -> Iterator[Sublet]:
    """Another host: a daemon with a root of its own, which has the image."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(base_file), "--trust", "-t", BASE)
    yield sublet
    sublet.clean()
    sublet.close()


def keys(sublet: Sublet, key: str = s3lab.KEY, secret: str = s3lab.SECRET) -> None:
    file = sublet.root / "backup.env"
    file.write_text(f"# of the bucket\nAWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n")
    file.chmod(0o600)


class Watched:
    """Looks at every command line of this host for a text, until it is done."""

    def __init__(self, text: str) -> None:
        self.text, self.looks = text.encode(), 0
        self.found: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.looks += 1
            for entry in os.listdir("/proc"):
                try:
                    line = Path(f"/proc/{entry}/cmdline").read_bytes() if entry.isdigit() else b""
                except OSError:
                    continue
                if self.text in line:
                    self.found.append(line)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_over_s3(own: Sublet, other: Sublet, bucket: s3lab.S3) -> None:
    repository = f"s3:{bucket.url}/bucket/sublet"
    own.ok("run", "-d", "--name", "far", "-v", "/data", BASE, "sleep", "inf")
    own.ok("exec", "far", "sh", "-c", "echo 1 > /data/a; echo 2 > /root/b; rm /etc/issue")
    keys(own)
    with Watched(s3lab.SECRET) as watched:
        first = own.ok("backup", "far", "--repo", repository)
        own.ok("exec", "far", "sh", "-c", "echo 3 > /data/a")
        second = own.ok("backup", "far", "--repo", repository)
        (other.root / "backup.password").write_bytes((own.root / "backup.password").read_bytes())
        keys(other)
        assert other.ok("backups", "--repo", repository, "-q").split() == [second, first]
        other.ok("restore", first, "--repo", repository)
        script = "cat /data/a /root/b; test ! -e /etc/issue"
        assert other.ok("exec", "far", "sh", "-c", script) == "1\n2"
        gone = own.ok("backup", "prune", "--repo", repository, "--keep-last", "1", "-f")
    assert gone == first
    assert watched.looks > 20
    assert watched.found == []
    own.ok("backup", "verify", "--data", "--repo", repository)
    assert own.ok("backups", "--repo", repository, "-q").split() == [second]
    assert other.ok("backups", "--repo", repository, "-q").split() == [second]
    for sublet in (own, other):
        sublet.ok("rm", "-f", "-v", "far")
        assert holders(sublet.home, s3lab.SECRET) == ["backup.env"]


def holders(place: Path, text: str) -> list[str]:
    """The files below it that hold a text; some may be gone before they are read."""
    found = []
    for directory, _, names in os.walk(place):
        for file in (Path(directory, name) for name in names if not name.endswith(".img")):
            with contextlib.suppress(FileNotFoundError):
                if file.is_file() and text.encode() in file.read_bytes():
                    found.append(file.name)
    return found


def test_s3_that_refuses(own: Sublet, bucket: s3lab.S3) -> None:
    repository = f"s3:{bucket.url}/bucket"
    own.ok("create", "--name", "far", BASE, "true")
    keys(own)
    refused(own, "backup", "verify", "--repo", repository, code=1, says="no password for")
    own.ok("backup", "far", "--repo", repository)  # restic makes the bucket
    nowhere = f"s3:{bucket.url}/nowhere"
    refused(own, "backups", "--repo", nowhere, code=1, says=f"no repository at {nowhere}")
    keys(own, key="AKIASOMEBODYELSE")
    for verb in (("backups",), ("backup", "far"), ("backup", "verify"), ("backup", "prune")):
        refused(own, *verb, "--repo", repository, code=1, says="refuses its keys")
    keys(own, secret="another-secret")
    outcome = own("backups", "--repo", repository)
    assert "refuses its keys" in outcome.err
    assert "SignatureDoesNotMatch" in outcome.err
    assert str(own.root / "backup.env") in outcome.err
    assert "another-secret" not in outcome.err
    (own.root / "backup.env").chmod(0o644)
    refused(own, "backups", "--repo", repository, code=1, says="can be read by others")
    own.ok("rm", "far")
    assert_nothing_left(own)
