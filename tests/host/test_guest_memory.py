"""Guests that are restored from memory: templates, sleepers, copies."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import eventually
from guestlab import Machine, machine, make_image

KEYGEN = """#!/bin/sh
while [ $# != 0 ]; do
  case $1 in -f) file=$2 ;; -t) type=$2 ;; esac
  shift
done
[ $type = ed25519 ] || sleep 1
read key </proc/sys/kernel/random/uuid
echo $key >$file; echo $key >$file.pub
"""
SSHD = """#!/bin/sh
[ "$1" != -t ] || exec test -f /etc/ssh/ssh_host_ed25519_key
serve() {
  [ -f /etc/ssh/ssh_host_rsa_key ] || echo early
  read key </etc/ssh/ssh_host_ed25519_key
  echo $$ >/run/sshd.pid
}
trap serve HUP
serve
while :; do echo $key; sleep 0.05; done >/served
"""
"""In the place of OpenSSH's: `sshd` writes again and again with which key it serves."""

RANDOM = ("arg=od", "arg=-An", "arg=-tx1", "arg=-N64", "arg=/dev/urandom")


@dataclass(frozen=True)
class Saved:
    """A memory image, and the disk that was in the machine then."""

    image: Path
    memory: Path
    disk: Path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Saved:
    """A guest that waits to become an instance."""
    directory = tmp_path_factory.mktemp("template")
    with machine(directory / "machine", image) as made:
        made.silence()
        made.save(directory / "saved")
    return Saved(image, directory / "saved", directory / "machine/disk.img")


def uptime(guest: Machine) -> float:
    return float(guest.run("cat", "/proc/uptime").split()[0])


def wait_for_seed(guest: Machine, seeded: float) -> None:
    """Until the kernel has just seeded its generator by itself. In its first two minutes it does so
    whenever half of its uptime has gone by since it last did (drivers/char/random.c,
    crng_has_old_seed): seeded at 3 s, at 6 and 12."""
    while uptime(guest) < 2 * seeded + 0.2:
        time.sleep(0.2)


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Saved:
    """A running instance that is saved while it writes, its disk frozen."""
    directory = tmp_path_factory.mktemp("sleeper")
    uuid = "/proc/sys/kernel/random/uuid"
    script = f"read a <{uuid}; while read line; do read b <{uuid}; echo $a $b; done"
    with machine(directory / "machine", image) as made:
        made.configure("arg=sh", "arg=-c", f"arg={script}", "stdin=1").expect("s")
        seeded = uptime(made)
        hook = "#!/bin/sh\ncp /run/sublet/generation /tmp/seen\n"
        made.run("busybox", "mkdir", "-p", "/etc/sublet/resume.d")
        made.run("sh", "-c", f"printf '{hook}' >/etc/sublet/resume.d/hook")
        made.run("busybox", "chmod", "+x", "/etc/sublet/resume.d/hook")
        made.run("busybox", "ip", "link", "set", "eth0", "down")
        made.run("busybox", "ip", "link", "set", "eth0", "name", "enp0s3")  # as udev does
        made.execute("sh", "-c", "while :; do echo x >>/log; done")
        _serve_ssh(made)
        wait_for_seed(made, seeded)
        made.silence("fsfreeze=1")
        made.save(directory / "saved")
    return Saved(image, directory / "saved", directory / "machine/disk.img")


def _serve_ssh(guest: Machine) -> None:
    guest.run("busybox", "mkdir", "/etc/ssh")
    for kind in ("ed25519", "rsa"):
        guest.run("sh", "-c", f"echo origin | busybox tee /etc/ssh/ssh_host_{kind}_key >/dev/null")
    for name, text in (("ssh-keygen", KEYGEN), ("sshd", SSHD)):
        guest.run("sh", "-c", f'echo "$0" >/bin/{name}; busybox chmod +x /bin/{name}', text)
    guest.run("busybox", "setsid", "sh", "-c", "sshd & while [ ! -s /served ]; do sleep 0.1; done")


@pytest.fixture
def copies(tmp_path: Path, sleeper: Saved) -> Iterator[list[Machine]]:
    made: list[Machine] = []
    with machine(
        tmp_path / "a",
        sleeper.image,
        resumed=sleeper.memory,
        disk=disk_of(sleeper, tmp_path / "a.img"),
    ) as a:
        made.append(a)
        with machine(
            tmp_path / "b",
            sleeper.image,
            resumed=sleeper.memory,
            disk=disk_of(sleeper, tmp_path / "b.img"),
        ) as b:
            made.append(b)
            yield made


def disk_of(saved: Saved, target: Path) -> Path:
    shutil.copyfile(saved.disk, target)
    return target


def first_words(saved: Saved, directory: Path, *items: str) -> bytes:
    """What a clone of a template prints that is configured with these."""
    with machine(directory, saved.image, resumed=saved.memory) as made:
        made.configure(*items).expect("s")
        code, out, _ = made.link.channels[0].collect()
        assert code == 0
        return out


def test_clones_have_nothing_in_common(tmp_path: Path, template: Saved) -> None:
    one = first_words(template, tmp_path / "1", *RANDOM)
    two = first_words(template, tmp_path / "2", *RANDOM)
    assert len(one.split()) == len(two.split()) == 64
    assert not set(one.splitlines()) & set(two.splitlines())


def test_a_clone_with_the_disk_of_its_memory(tmp_path: Path, template: Saved) -> None:
    """It has that mounted already; `test_clone_is_an_instance` has one of its own."""
    disk = disk_of(template, tmp_path / "disk.img")
    with machine(tmp_path / "m", template.image, resumed=template.memory, disk=disk) as made:
        made.configure("arg=sh", "arg=-c", "arg=echo written >/root/file; cat /root/file").expect(
            "s"
        )
        assert made.link.channels[0].collect()[:2] == (0, b"written\n")
        made.process.wait(60)
    found = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout


def test_clone_is_an_instance(tmp_path: Path, template: Saved) -> None:
    with machine(tmp_path / "clone", template.image, resumed=template.memory) as made:
        mac = "02:00:00:00:00:0c"
        began, start = time.time(), time.monotonic()
        made.configure(
            "arg=sleep",
            "arg=999",
            "hostname=clone",
            f"nic=0 {mac} 10.0.0.9/16 -",
            "machine-id=" + "ab" * 16,
        ).expect("s")
        print(f"configured in {(time.monotonic() - start) * 1000:.0f} ms")
        assert made.run("busybox", "hostname") == "clone\n"
        assert mac in made.run("busybox", "ip", "link")
        assert made.run("cat", "/etc/machine-id") == "ab" * 16 + "\n"
        assert began - 1 < int(made.run("busybox", "date", "+%s")) < time.time() + 2


def test_wakes(tmp_path: Path, sleeper: Saved) -> None:
    """The same instance, at another time, with the same process in the same state."""
    disk = disk_of(sleeper, tmp_path / "disk.img")
    with machine(tmp_path / "m", sleeper.image, resumed=sleeper.memory, disk=disk) as made:
        made.renew(f"time={time.time() + 86400:.0f}.0")
        first, second = ask(made), ask(made)
        assert first[0] == second[0], "its main process is not the one that it was"
        assert first[1] != second[1]
        eventually(
            lambda: "/log" not in made.run("ps"), "what a client that is gone had started ends"
        )
        made.run("sh", "-c", "echo thawed >/log")
        assert made.run("busybox", "hostname") == "guest\n"


def test_forks_become_others(copies: list[Machine]) -> None:
    identities = []
    for number, made in enumerate(copies):
        made.renew(
            "fork=1",
            f"hostname=copy{number}",
            f"machine-id={number:032x}",
            f"nic=0 02:00:00:00:00:0{number} 10.0.0.{number + 1}/16 10.0.255.254",
            f"file=/etc/hosts\n10.0.0.{number + 1} copy{number}\n",
        )
        assert made.run("busybox", "hostname") == f"copy{number}\n"
        assert made.run("cat", "/etc/machine-id") == f"{number:032x}\n"
        assert f"copy{number}" in made.run("cat", "/etc/hosts")
        addresses = made.run("busybox", "ip", "address")
        assert f"10.0.0.{number + 1}/16" in addresses
        assert f"02:00:00:00:00:0{number}" in addresses
        assert "default via 10.0.255.254 dev enp0s3" in made.run("busybox", "ip", "route")
        generation = made.run("cat", "/run/sublet/generation")
        assert made.run("cat", "/tmp/seen") == generation, "the hook ran before DONE was said"
        identities.append((generation, made.run(*(a.removeprefix("arg=") for a in RANDOM))))
    assert identities[0][0] != identities[1][0]
    assert not set(identities[0][1].splitlines()) & set(identities[1][1].splitlines())


def test_a_fork_never_serves_the_keys_of_its_origin(copies: list[Machine]) -> None:
    """It has the first of its own when it has been told who it is, and the others soon."""
    keys = set()
    for made in copies:
        made.renew("fork=1")
        served = made.run("cat", "/served").split()
        assert made.run("cat", "/run/sshd.pid"), "it serves already"
        (key,) = made.run("cat", "/etc/ssh/ssh_host_ed25519_key").split()
        both = "cd /etc/ssh; [ -f ssh_host_rsa_key ] && cat *_key"
        origin = served.count("origin")
        until = time.monotonic() + 60
        while not (found := _said(made, both)) or "early" not in served or served[-1] != key:
            assert time.monotonic() < until, (found, served[origin:])
            time.sleep(0.1)
            served = made.run("cat", "/served").split()
        assert served.count("origin") == origin
        assert "origin" not in found
        assert made.run("sh", "-c", "echo /etc/ssh/*.old") == "/etc/ssh/*.old\n"
        keys.update(found)
    assert len(keys) == 4


def _said(guest: Machine, script: str) -> list[str]:
    """The words of a command that succeeds; none where it does not."""
    return guest.run("sh", "-c", f"{script} || :").split()


def ask(guest: Machine) -> list[str]:
    """Two UUIDs of the main process: what it kept from its start, and one made now."""
    main = guest.link.channels[0]
    main.send("i", b"\n")
    return main.until(b"\n").decode().split()


def test_randomness_of_running_copies(copies: list[Machine]) -> None:
    """The process has run all the time, and starts nothing: its kernel's generator alone counts."""
    for made in copies:
        made.renew("fork=1")
    one, two = (ask(made) for made in copies)
    assert one[0] == two[0]
    assert one[1] != two[1]


def asked_unrenewed(sleeper: Saved, directory: Path) -> str:
    """The UUID that a copy makes which only goes on, and has not been given any entropy."""
    directory.mkdir()
    disk = disk_of(sleeper, directory / "disk.img")
    with machine(directory / "m", sleeper.image, resumed=sleeper.memory, disk=disk) as made:
        made.link.open().send("G")
        return ask(made)[1]


def test_without_renewal_copies_are_alike(tmp_path: Path, sleeper: Saved) -> None:
    """Which shows that the tests of randomness test something."""
    seen = [asked_unrenewed(sleeper, tmp_path / str(n)) for n in range(4)]
    assert len(set(seen)) < len(seen)


def test_frozen_disk_is_whole(tmp_path: Path, sleeper: Saved) -> None:
    """A copy of the disk taken while it was frozen needs no repair."""
    disk = disk_of(sleeper, tmp_path / "disk.img")
    done = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
