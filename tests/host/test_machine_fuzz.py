"""Guests that send whatever they like, to a supervisor that notices its own wrong accesses."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machinelab import MOST, Client, Lab, Machine

from sublet.drivers.container.protocol import Ask, Tell
from sublet.drivers.vm.messages import Say

SOURCES = Path(__file__).parents[2]
MOVES = 400
TYPES = bytes([*b"oroxsfRdaeickwCNQG", 0, 255])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The supervisor with the compiler's own checks of addresses and of undefined behaviour."""
    program = tmp_path_factory.mktemp("watched") / "sublet-machine"
    files = [
        *SOURCES.glob("machine/*.c"),
        *(SOURCES / f"supervisor/{n}.c" for n in ("host", "log")),
    ]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        ["gcc", "-std=c17", "-g", "-O1", *checks, *map(str, files), "-o", str(program)], check=True
    )
    return program


@pytest.fixture
def machine(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Machine]]:
    """Starts one; afterwards no check may have failed in any."""
    monkeypatch.setenv("ASAN_OPTIONS", f"log_path={tmp_path}/report")
    monkeypatch.setenv("UBSAN_OPTIONS", f"log_path={tmp_path}/report:print_stacktrace=1")
    lab = Lab(watched)
    yield lab.start
    lab.close()
    reports = "\n".join(file.read_text() for file in tmp_path.glob("report*"))
    assert not reports, reports


def some_bytes(chance: random.Random, most: int = 200) -> bytes:
    return chance.randbytes(chance.randrange(most))


def some_frame(chance: random.Random) -> bytes:
    """Mostly as it should be, so that it goes deep; or anything."""
    channel = chance.choice([0, 0, 1, 2, 3, 4, 256, 257, 258, chance.randrange(65536)])
    kind = chance.choice(b"ppppppcxn" if chance.random() < 0.97 else range(256))
    body = bytes([chance.choice(TYPES)]) + some_bytes(chance, chance.choice([8, 200, MOST]))
    if kind == ord("c"):
        body = struct.pack("<I", chance.choice([0, 1, 100, 65536, 1 << 24, 0xFFFFFFFF]))
    if kind in b"xn":
        body = b""
    length = len(body) if chance.random() < 0.98 else chance.choice([0, MOST, MOST + 1, 1 << 31])
    return struct.pack("<HBBI", channel, kind, int(chance.random() < 0.01), length) + body


def some_packet(chance: random.Random) -> bytes:
    return bytes([chance.choice(TYPES)]) + some_bytes(chance, chance.choice([2, 8, 200, MOST]))


class Chaos:
    """A guest and its clients, none of whom knows what he does."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine, self.chance = machine, random.Random(seed)
        self.clients: list[Client] = []
        machine.guest.agent.setblocking(False)

    def move(self) -> None:
        chance = self.chance
        moves = [self.guest_says, self.guest_says, self.guest_hears, self.client_says]
        moves += [self.client_hears, self.client_comes, self.client_goes, self.guest_is_ready]
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionError):
            chance.choices(moves, [6, 6, 6, 6, 3, 1, 1, 1])[0]()

    def guest_says(self) -> None:
        data = b"".join(some_frame(self.chance) for _ in range(self.chance.randrange(1, 5)))
        if self.chance.random() < 0.05:
            data = some_bytes(self.chance) + data
        if self.chance.random() < 0.05:
            data = data[: self.chance.randrange(len(data))]
        self.machine.guest.agent.send(data)

    def guest_is_ready(self) -> None:
        text = self.chance.choice([b"", b"sync=", b"sync=" + b"0" * 32, b"x" * 300])
        self.machine.guest.ready(text)

    def guest_hears(self) -> None:
        self.machine.guest.agent.recv(self.chance.choice([1, 100, 100_000]))

    def client_comes(self) -> None:
        if len(self.clients) < 20:
            client = self.machine.connect()
            client.socket.setblocking(False)
            self.clients.append(client)

    def client_says(self) -> None:
        if self.clients:
            self.chance.choice(self.clients).socket.send(some_packet(self.chance))

    def client_hears(self) -> None:
        if self.clients:
            self.chance.choice(self.clients).socket.recv(MOST)

    def client_goes(self) -> None:
        if self.clients:
            self.clients.pop(self.chance.randrange(len(self.clients))).close()


@pytest.mark.parametrize("seed", range(12))
def test_any_guest_and_any_clients(machine: Callable[..., Machine], seed: int) -> None:
    one = machine("--console-output")
    one.configure()
    chaos = Chaos(one, seed)
    for _ in range(MOVES):
        chaos.move()
        if one.process.poll() is not None:
            break
    with contextlib.suppress(BrokenPipeError):  # it has had the machine ended
        one.guest.end(0)
    one.guest.close()
    assert one.wait() == 0
    assert one.file("exit"), "no exit code"


@pytest.mark.parametrize("seed", range(6))
def test_any_guest_that_is_being_set_up(machine: Callable[..., Machine], seed: int) -> None:
    one, chance = machine(), random.Random(seed)
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        one.first.request(Say.CONFIGURE, some_bytes(chance, 2000))
        for _ in range(20):
            one.guest.agent.send(some_frame(chance))
        one.guest.ready()
        one.guest.agent.send(b"".join(some_frame(chance) for _ in range(20)))
        one.guest.packet(1, Tell.FAILED, some_bytes(chance, MOST))
        one.guest.end(0)
    one.first.close()
    assert one.wait() in (0, 1)


def test_a_flood_is_not_kept(machine: Callable[..., Machine]) -> None:
    """As fast as it can, on all channels, to clients none of whom reads."""
    one = machine()
    one.configure()
    for _ in range(30):
        client = one.attach()
        client.request(Ask.EXECUTE, b"arg=x\0")
    one.guest.agent.setblocking(False)
    frame = struct.pack("<HBBI", 0, ord("p"), 0, 1001) + b"o" + b"x" * 1000
    flood = b"".join(struct.pack("<H", n) + frame[2:] for n in range(32)) * 50
    for _ in range(200):
        select.select([one.guest.agent], [one.guest.agent], [], 1)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            one.guest.agent.recv(1 << 20)
            one.guest.agent.send(flood)
    resident = int(Path(f"/proc/{one.process.pid}/statm").read_text().split()[1]) * 4096
    assert resident < 200 << 20  # most of it is the checks' own
    one.guest.end(0)
    assert one.wait() == 0


def test_the_checks_find_what_they_are_for(tmp_path: Path) -> None:
    """They are of no use where the compiler's library cannot work."""
    assert shutil.which("gcc")
    source = tmp_path / "wrong.c"
    source.write_text("int main(int n, char **v) { int a[2] = {0}; return a[n + 1] + !v; }\n")
    program = tmp_path / "wrong"
    subprocess.run(["gcc", "-fsanitize=address", str(source), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, check=False, env=dict(os.environ))
    assert done.returncode != 0
    assert b"AddressSanitizer" in done.stderr
