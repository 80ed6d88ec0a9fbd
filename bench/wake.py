"""What a client waits for who wakes an instance with his connection: one connect, one answer.

A container that was stopped, and a VM that was hibernated. The client repeats its first packet
after 1, 3 and 7 seconds, to which its time is rounded up; the event tells the rest.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable

from bench.engines import IMAGE
from bench.lab import Lab
from bench.measure import Findings, Row
from sublet.sdk import Instance

SERVE = (
    "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1)"
    " or die; while ($c = $s->accept) { print $c 'hello'; close $c }"
)


KINDS = (("container, stopped", False, "64m"), ("VM, hibernated", True, "256m"))
"""What is woken, whether it is a VM, and its memory."""


def run(lab: Lab) -> Findings:
    """Each is put to sleep and woken, again and again."""
    client, found = lab.client, []
    for what, vm, memory in (
        ("container, stopped", False, "64m"),
        ("VM, hibernated", True, "256m"),
    ):
        port = _free_port()
        command = ["perl", "-e", SERVE]
        made = client.run(
            IMAGE, command, vm=vm, memory=memory, wake=True, ports=[f"{port}:80"], stop_timeout=0
        )

        def sleep(made: Instance = made, vm: bool = vm) -> None:
            (client.hibernate if vm else client.stop)(made.id)

        try:
            _until(lambda port=port: _ask(port) == b"hello")  # type: ignore[misc]
            times = [_woken(sleep, port) for _ in range(min(lab.rounds, 7))]
            told = [e for e in client.events() if e["type"] == "instance.woken"]
            own = [float(e["detail"]["seconds"]) for e in told if e["instance"] == made.id]
        finally:
            client.remove(made.id, force=True)
        note = f"{min(times):.1f} to {max(times):.1f} s"
        found += [
            Row("wake", f"{what}: connect to answer", statistics.median(times), "s", note),
            Row("wake", f"{what}: of which until it runs", statistics.median(own), "s"),
        ]
    return Findings(found, [])


def _woken(sleep: Callable[[], None], port: int) -> float:
    """Seconds from the connect of a client to its answer."""
    sleep()
    began = time.monotonic()
    assert _ask(port) == b"hello"
    return time.monotonic() - began


def _ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        return client.makefile("rb").read()


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("nobody listens")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
