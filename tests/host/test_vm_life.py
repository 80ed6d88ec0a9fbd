"""The verbs of a VM's life, by the command line: created, stopped, started again, paused, gone."""

from __future__ import annotations

import os
import pty
import time

import pytest
from clilab import refused
from conftest import Sublet, eventually
from vmhost import COUNT, IMAGE, LOOP, SMALL, clock, count, gone, qemu, row, state, up


def start(vm: Sublet, *flags: str, command: tuple[str, ...] = LOOP, name: str = "box") -> str:
    return vm.ok("run", "-d", *SMALL, "--name", name, *flags, IMAGE, *command)


def test_it_is_shown_as_what_it_is(vm: Sublet) -> None:
    made = start(vm)
    shown = row(vm, "box")
    assert (shown["id"], shown["isolation"], shown["state"]) == (made, "vm", "running")
    assert [r["isolation"] for r in vm.json("ps", "--json")] == ["vm"]
    assert "vm" in vm.ok("ps").splitlines()[1].split()
    assert vm.ok("exec", "box", "cat", "/etc/machine-id") != ""
    own = vm.ok("exec", "box", "uname", "-r")
    assert own != os.uname().release
    assert vm.ok("exec", "box", "hostname") == made
    stats = vm.json("stats", "--no-stream", "--json", "box")[0]
    assert stats["memory"] > 1 << 20
    qemu(vm, "box")


def test_the_signal_of_stop_reaches_the_command(vm: Sublet) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    start(vm, command=("sh", "-c", script))
    up(vm, "box")
    pid = qemu(vm, "box")
    assert vm.ok("stop", "box") == "box"
    assert (state(vm, "box"), row(vm, "box")["exit_code"]) == ("stopped", 7)
    assert vm.ok("logs", "box") == "up\nbye"
    assert gone(pid)
    assert vm.ok("stop", "box") == "box"
    assert vm.ok("wait", "box") == "7"
    vm.ok("rm", "box")
    assert vm("inspect", "box").code == 1


def test_one_that_does_not_listen_is_cut_off(vm: Sublet) -> None:
    start(vm, command=("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"))
    up(vm, "box")
    begin = time.monotonic()
    vm.ok("stop", "-t", "1", "box")
    assert 1 <= time.monotonic() - begin < 10
    assert row(vm, "box")["exit_code"] == 137


def test_the_stop_signal_is_the_one_asked_for(vm: Sublet) -> None:
    script = "trap 'exit 3' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"
    start(vm, "--stop-signal", "SIGUSR1", command=("sh", "-c", script))
    eventually(lambda: vm.ok("logs", "box") == "up", "it listens")
    vm.ok("stop", "box")
    assert row(vm, "box")["exit_code"] == 3


def test_kill(vm: Sublet) -> None:
    script = "trap 'exit 9' HUP; trap 'echo usr' USR1; echo up; while :; do sleep 0.05; done"
    start(vm, command=("sh", "-c", script))
    eventually(lambda: vm.ok("logs", "box") == "up", "it listens")
    vm.ok("kill", "-s", "USR1", "box")
    eventually(lambda: "usr" in vm.ok("logs", "box"), "it hears the first signal")
    vm.ok("kill", "-s", "HUP", "box")
    assert vm.ok("wait", "box") == "9"
    vm.ok("start", "box")
    vm.ok("kill", "box")
    assert vm.ok("wait", "box") == "137"
    assert vm("kill", "box").code == 1


def test_the_disk_is_kept(vm: Sublet) -> None:
    made = vm.ok("create", *SMALL, "--name", "box", IMAGE, "sh", "-c", "cat /mark; echo x >> /mark")
    assert row(vm, "box")["state"] == "stopped"
    for expected in ("", "x\n", "x\nx\n"):
        outcome = vm("start", "-a", "box")
        assert (outcome.code, outcome.out) == (0, expected)
    assert row(vm, "box")["id"] == made


def test_restart(vm: Sublet) -> None:
    start(vm, "--rm")
    before, address = qemu(vm, "box"), row(vm, "box")["address"]
    vm.ok("exec", "box", "sh", "-c", "echo here > /mark")
    vm.ok("restart", "-t", "60", "box")
    assert qemu(vm, "box") != before
    assert row(vm, "box")["address"] == address
    assert vm.ok("exec", "box", "cat", "/mark") == "here"
    vm.ok("stop", "box")
    eventually(lambda: vm("inspect", "box").code == 1, "it is deleted")


def test_a_paused_guest_stands_still(vm: Sublet) -> None:
    start(vm, command=COUNT)
    count(vm, "box")
    assert vm.ok("pause", "box") == "box"
    assert state(vm, "box") == "paused"
    refused = vm("exec", "box", "true")
    assert (refused.code, "paused" in refused.err) == (1, True)
    pid = qemu(vm, "box")
    before = ticks(pid)
    time.sleep(3.5)
    assert ticks(pid) - before <= 5  # QEMU's own timers
    vm.ok("unpause", "box")
    assert clock(vm, "box") < 2
    shown = count(vm, "box")
    eventually(lambda: count(vm, "box") > shown, "it counts again")
    assert vm("unpause", "box").code == 1


def ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))


@pytest.mark.parametrize("how", [["stop", "-t", "60"], ["kill"], ["rm", "-f"]])
def test_a_paused_one_can_be_ended(vm: Sublet, how: list[str]) -> None:
    start(vm)
    up(vm, "box")
    vm.ok("pause", "box")
    vm.ok(*how, "box")
    if how[0] != "rm":
        assert vm.ok("wait", "box") == ("7" if how[0] == "stop" else "137")


def test_logs_are_followed(vm: Sublet) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.2; done"
    start(vm, command=("sh", "-c", script))
    following = vm.spawn("logs", "-f", "box")
    out, err = following.communicate(timeout=60)
    assert out.splitlines() == ["out 1", "out 2", "out 3"]
    assert err.splitlines() == ["err 1", "err 2", "err 3"]
    assert vm.ok("logs", "--tail", "1", "box") in ("out 3", "")
    assert vm.ok("wait", "box") == "0"


def test_attach_shares_the_streams_and_detaches(vm: Sublet) -> None:
    script = "while :; do echo .; read -t 1 a && echo got $a; [ x$a != xend ] || exit 7; done"
    start(vm, "-it", command=("sh", "-c", script))
    master, slave = pty.openpty()
    terminal = {"stdin": slave, "stdout": slave, "stderr": slave}
    first, second = vm.spawn("attach", "box", **terminal), vm.spawn("attach", "box")
    assert second.stdout is not None
    assert "." in second.stdout.readline()
    written = b""

    def shows(text: bytes) -> bool:
        nonlocal written
        written += os.read(master, 4096)
        return text in written

    os.write(master, b"hello\n")
    eventually(lambda: shows(b"got hello"), "the terminal shows it")
    os.write(master, b"\x10\x11")
    assert first.wait(timeout=60) == 0
    assert state(vm, "box") == "running"
    third = vm.spawn("attach", "box", **terminal)
    os.write(master, b"end\n")
    assert third.wait(timeout=60) == 7
    second.communicate(timeout=60)
    assert second.returncode == 7
    for fd in (master, slave):
        os.close(fd)


def test_start_gives_input_to_the_command(vm: Sublet) -> None:
    vm.ok("create", *SMALL, "-i", "--name", "box", IMAGE, "sh", "-c", "cat; exit 4")
    for text in ("one\n", "two\n"):
        outcome = vm("start", "-ai", "box", input=text)
        assert (outcome.code, outcome.out) == (4, text)


def test_rename(vm: Sublet) -> None:
    start(vm)
    vm.ok("rename", "box", "new")
    found = vm.ok("run", "--rm", *SMALL, IMAGE, "nslookup", "new")
    assert str(row(vm, "new")["address"]) in found


def test_time_to_live(vm: Sublet) -> None:
    start(vm, "--ttl", "2s", "--rm", name="brief")
    eventually(lambda: vm("inspect", "brief").code == 1, "it is gone", 60)


def test_restarted_on_failure(vm: Sublet) -> None:
    script = "echo x >> /mark; [ $(wc -l < /mark) -ge 3 ] && exit 0; exit 1"
    start(vm, "--restart", "on-failure:5", command=("sh", "-c", script))
    eventually(
        lambda: (row(vm, "box")["exit_code"], state(vm, "box")) == (0, "stopped"), "third time", 120
    )
    assert vm.ok("wait", "box") == "0"


def test_health_checks(vm: Sublet) -> None:
    check = ("--health-cmd", "test -e /ready", "--health-interval", "0.3s")
    late = ("sh", "-c", "sleep 1; touch /ready; exec sleep 1000")
    start(vm, "--wait", *check, "--health-retries", "99", command=late)
    assert row(vm, "box")["health"] == "healthy"
    vm.ok("exec", "box", "rm", "/ready")
    vm.ok("rm", "-f", "box")


def test_a_full_disk_is_the_guests_own(vm: Sublet) -> None:
    fill = "dd if=/dev/zero of=/fill bs=1M count=400 2>&1 | grep -c 'No space'"
    script = f"{fill}; rm /fill; echo x > /x"
    start(vm, "--disk", "64m", command=("sh", "-c", f"{script} && echo fine"))
    assert vm.ok("wait", "box") == "0"
    assert vm.ok("logs", "box").split() == ["1", "fine"]


def test_memory_larger_than_the_host_has(vm: Sublet) -> None:
    refused(vm, "run", "--vm", "-m", "900g", IMAGE, "true", says="memory free")
    assert vm("run", "--vm", "-m", "64m", IMAGE, "true").code == 125


def test_what_only_containers_have_is_refused(vm: Sublet) -> None:
    for flags in (("-v", "/tmp:/in"), ("--device", "/dev/fuse"), ("--network", "host")):
        refused(vm, "run", *SMALL, *flags, IMAGE, "true", says="A VM cannot have")
