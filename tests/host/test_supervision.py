"""Supervisors: nothing is lost and nothing stays, whoever dies and however slowly one reads."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clilab import assert_nothing_left, processes
from conftest import Sublet, eventually

from sublet.domain.config import Config
from sublet.drivers.cgroup import SUPERVISORS, Cgroups
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask, Message, Tell


@pytest.fixture(scope="module")
def frail(small_file: Path) -> Iterator[Sublet]:
    """A daemon that may be killed, with a small image."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(small_file), "--trust", "-t", "small")
    yield sublet
    sublet.clean()
    sublet.close()


@pytest.fixture(autouse=True)
def nothing_left(frail: Sublet) -> Iterator[None]:
    null = os.stat("/dev/null")
    yield
    for row in frail.json("ps", "-a", "--json"):
        frail.ok("rm", "-f", row["id"])
    assert_nothing_left(frail)
    eventually(lambda: not supervisors(frail), "the supervisors end")
    now = os.stat("/dev/null")
    assert (now.st_uid, now.st_gid, now.st_mode) == (null.st_uid, null.st_gid, null.st_mode)


def supervisors(sublet: Sublet) -> list[int]:
    """The processes in the supervisors' cgroup."""
    groups = Cgroups(Config(root=sublet.root, run=sublet.run_dir).identity)
    return groups.pids(SUPERVISORS)


def start(sublet: Sublet, *args: str) -> str:
    return sublet.ok("run", "-d", *args)


@pytest.fixture
def connect(frail: Sublet) -> Iterator[Connect]:
    """Makes clients of an instance's supervisor, which are gone after the test."""
    with contextlib.ExitStack() as stack:

        def made(instance: str) -> Client:
            client = Client(frail, instance)
            stack.callback(client.socket.close)
            return client

        yield made


class Client:
    """A connection to an instance's supervisor, as the daemon makes them."""

    def __init__(self, sublet: Sublet, instance: str) -> None:
        self.socket = protocol.connect(sublet.run_dir / "instances" / instance)
        self.socket.setblocking(True)
        self.socket.settimeout(60)

    def say(self, message: bytes) -> None:
        self.socket.send(message)

    def message(self) -> Message:
        """The next that comes."""
        data = self.socket.recv(protocol.MESSAGE + 1)
        assert data, "the supervisor has gone"
        return Message(data[0], data[1:])

    def attach(self) -> None:
        self.say(protocol.packet(Ask.ATTACH))


Connect = Callable[[str], Client]

LINES = "i=0; while [ $i -lt {} ]; do echo $i {}; i=$((i+1)); done"
"""Prints so many numbered lines, each with that text."""


NAP = f"97532.{os.getpid()}"
"""Seconds for which no other worker of these tests has a process sleep."""


def exit_code(sublet: Sublet, instance: str) -> int:
    return int(sublet.ok("wait", instance))


def test_a_slow_reader_loses_nothing(frail: Sublet) -> None:
    script = LINES.format(10_000, "x" * 1000)
    reader = frail.spawn("run", "--rm", "small", "sh", "-c", script)
    assert reader.stdout is not None
    for number, line in enumerate(reader.stdout):
        assert line == f"{number} {'x' * 1000}\n"
        if number % 2000 == 0:
            time.sleep(0.2)  # the pipe to it fills, and all before that
    reader.communicate(timeout=30)
    assert (reader.returncode, number) == (0, 9_999)


def test_bytes_of_all_kinds(frail: Sublet, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(1 << 20))
    args = ["run", "--rm", "-v", f"{noise}:/noise:ro", "small", "cat", "/noise"]
    sublet = [str(Path(sys.executable).parent / "sublet"), *args]
    output = subprocess.run(sublet, env=frail.env, capture_output=True, check=True).stdout
    assert output == noise.read_bytes()


def test_one_who_does_not_read_makes_it_wait_until_he_goes(frail: Sublet, connect: Connect) -> None:
    script = "read x; " + LINES.format(1000, "x" * 1000)
    instance = start(frail, "-i", "small", "sh", "-c", script)
    stalled = connect(instance)
    stalled.attach()
    stalled.say(protocol.packet(Ask.INPUT, b"go\n"))
    eventually(lambda: "x" in frail.ok("logs", instance), "output")
    time.sleep(0.3)
    assert frail.json("inspect", instance)["state"] == "running"
    stalled.socket.close()
    assert exit_code(frail, instance) == 0
    assert len(frail.ok("logs", instance).splitlines()) == 1000


def test_input_stays_open_until_it_is_closed(frail: Sublet, connect: Connect) -> None:
    instance = start(frail, "-i", "small", "cat")
    for text in (b"first", b"second"):
        client = connect(instance)
        client.attach()
        client.say(protocol.packet(Ask.INPUT, text))
        assert client.message() == Message(Tell.OUTPUT, text)
        client.socket.close()
    frail.kill_daemon()
    last = connect(instance)
    last.attach()
    last.say(protocol.packet(Ask.INPUT, b"third"))
    assert last.message() == Message(Tell.OUTPUT, b"third")
    last.say(protocol.packet(Ask.CLOSE))
    ended = last.message()
    assert (ended.kind, ended.number) == (Tell.EXITED, 0)
    assert exit_code(frail, instance) == 0


def test_nonsense_does_not_end_it(frail: Sublet, connect: Connect) -> None:
    instance = start(frail, "-i", "small", "cat")
    for message in (b"", b"?", b"e", b"epid\0crun\0", b"w\1", b"k", b"i" * protocol.MESSAGE * 3):
        client = connect(instance)
        client.say(message)
        client.socket.close()
    fd = os.open("/dev/null", os.O_RDWR)
    for count in (1, 3, 4, 5):
        client = connect(instance)
        socket.send_fds(client.socket, [b"efile\0/nowhere\0"], [fd] * count)
        client.socket.close()
    os.close(fd)
    client = connect(instance)
    client.attach()
    client.say(protocol.packet(Ask.INPUT, b"alive"))
    assert client.message() == Message(Tell.OUTPUT, b"alive")
    assert frail.ok("exec", instance, "echo", "works") == "works"


def test_the_log_is_rotated(frail: Sublet, connect: Connect) -> None:
    script = "read x; " + LINES.format(3000, "x" * 50)
    options = ("--log-opt", "max-size=64k", "--log-opt", "max-file=3")
    instance = start(frail, "-i", *options, "small", "sh", "-c", script)
    follower = frail.spawn("logs", "-f", instance)
    client = connect(instance)
    client.attach()
    client.say(protocol.packet(Ask.INPUT, b"\n"))
    client.socket.close()
    assert exit_code(frail, instance) == 0
    place = frail.root / "instances" / instance
    files = sorted(place.glob("log*"))
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(0 < file.stat().st_size <= 64 << 10 for file in files)
    kept = [int(line.split()[0]) for line in frail.ok("logs", instance).splitlines()]
    assert kept == list(range(3000 - len(kept), 3000))
    followed = [int(line.split()[0]) for line in follower.communicate(timeout=30)[0].splitlines()]
    assert followed[-1] == 2999
    assert followed == sorted(set(followed))


def test_no_log(frail: Sublet) -> None:
    instance = start(frail, "--log-driver", "none", "small", "echo", "unheard")
    assert exit_code(frail, instance) == 0
    assert not list((frail.root / "instances" / instance).glob("log*"))


def test_a_process_of_exec_ends_with_the_daemon(frail: Sublet) -> None:
    instance = start(frail, "small", "sleep", "1000")
    client = frail.spawn("exec", instance, "sleep", NAP)
    eventually(lambda: processes(f"sleep {NAP}"), "the process")
    frail.kill_daemon()
    eventually(lambda: not processes(f"sleep {NAP}"), "its end")
    client.communicate(timeout=30)
    assert client.returncode != 0
    assert frail.ok("exec", instance, "echo", "works") == "works"


def test_a_process_of_exec_that_reads_nothing_ends_with_its_client(frail: Sublet) -> None:
    instance = start(frail, "small", "sleep", "1000")
    client = frail.spawn("exec", "-i", instance, "sleep", NAP, stdin=subprocess.PIPE)
    eventually(lambda: processes(f"sleep {NAP}"), "the process")
    assert client.stdin is not None
    os.set_blocking(client.stdin.fileno(), False)
    for _ in range(100):
        try:
            os.write(client.stdin.fileno(), b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.005)
    client.kill()
    with contextlib.suppress(BrokenPipeError):
        client.communicate(timeout=30)
    eventually(lambda: not processes(f"sleep {NAP}"), "its end")


def test_who_kills_the_supervisor_ends_the_instance(frail: Sublet) -> None:
    instance = start(frail, "small", "sleep", "1000")
    [supervisor] = supervisors(frail)
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: frail.json("inspect", instance)["state"] == "stopped", "its end")
    row = frail.json("inspect", instance)
    assert (row["exit_code"], "supervisor" in row["reason"]) == (137, True)


def test_out_of_memory_ends_the_instance_alone(frail: Sublet) -> None:
    script = "x=0123456789; while :; do x=$x$x; done"
    outcome = frail("run", "--rm", "--memory", "32m", "small", "sh", "-c", script)
    assert outcome.code in (2, 137)  # dash says so itself, if malloc tells it in time


def test_an_exit_code_is_kept_for_the_next_daemon(frail: Sublet, connect: Connect) -> None:
    instance = start(frail, "-i", "small", "sh", "-c", "read x; exit 7")
    frail.kill_daemon()
    client = connect(instance)
    client.attach()
    client.say(protocol.packet(Ask.INPUT, b"\n"))
    assert client.message().number == 7
    assert exit_code(frail, instance) == 7


def test_a_terminal_that_is_closed_and_opened_again(frail: Sublet) -> None:
    again = "exec <&- >&- 2>&-; sleep 0.3; exec >/dev/console; echo back"
    assert frail.ok("run", "--rm", "-t", "small", "sh", "-c", again) == "back"
