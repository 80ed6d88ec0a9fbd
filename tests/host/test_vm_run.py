"""`run` and `exec` with guests: streams, exit codes, terminals, what the flags do inside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios

import pytest
from conftest import SUBLET, Sublet
from vmhost import IMAGE, LOOP, SMALL

NOTE = "Booting; later VMs of this image and size resume instead\n"
"""What a start says that takes long: that of the first VM, or any on a busy host."""


def run(*flags: str) -> tuple[str, ...]:
    return ("run", "--rm", *SMALL, *flags, IMAGE)


def test_output_errors_and_exit_code_pass_through(vm: Sublet) -> None:
    outcome = vm(*run(), "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (outcome.code, outcome.out) == (7, "out\n")
    assert outcome.err.removeprefix(NOTE) == "err\n"
    assert vm.json("ps", "-a", "--json") == []


def same(one: str, other: str) -> bool:
    """Whether two errors are the same one, with the same hint; crun puts the rest in its words."""

    def gist(text: str) -> list[str]:
        first, *rest = text.removeprefix(NOTE).splitlines()
        return [first.split(" in the image")[0].split(": ")[1], *rest]

    return gist(one) == gist(other)


def test_more_settings_than_the_first_credit(vm: Sublet) -> None:
    """The template keeps silence until it is told all; of that it has to grant the rest."""
    variables = [word for n in range(10) for word in ("-e", f"V{n}={'x' * 10_000}")]
    script = "env | wc -c; exit 3"
    for _ in range(2):  # the second one comes from a template in any case
        outcome = vm(*run(*variables), "sh", "-c", script)
        assert outcome.code == 3
        assert int(outcome.out) > 100_000


def test_a_closed_input_is_an_empty_one(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
    command = ["sh", "-c", 'exec "$@" <&-', "sh", str(SUBLET), "exec", "-i", "box", "cat"]
    outcome = subprocess.run(command, env=vm.env, capture_output=True, text=True, timeout=60)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_input_passes_through(vm: Sublet) -> None:
    text = "x" * 300_000 + "\n"
    assert vm(*run("-i"), "sh", "-c", "cat; exit 4", input=text).out == text
    assert vm.ok(*run(), "sh", "-c", "cat; echo end", input="lost") == "end"


def test_much_output_arrives_whole_and_in_order(vm: Sublet) -> None:
    assert vm.ok(*run(), "seq", "100000").split() == [str(n) for n in range(1, 100_001)]


@pytest.mark.parametrize(
    ("command", "code"),
    [(("/no/such",), 127), (("nothing",), 127), (("/etc/passwd",), 126), (("/etc",), 126)],
)
def test_commands_that_do_not_start_fail_as_in_containers(
    vm: Sublet, command: tuple[str, ...], code: int
) -> None:
    container = vm("run", "--rm", IMAGE, *command)
    machine = vm(*run(), *command)
    assert machine.code == container.code == code
    assert same(machine.err, container.err)
    assert vm.json("ps", "-a", "--json") == []


def test_exec_fails_as_in_containers(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
    vm.ok("run", "-d", "--name", "other", IMAGE, *LOOP)
    for command, code in (("/no/such", 127), ("nothing", 127), ("/etc/passwd", 126)):
        container, machine = vm("exec", "other", command), vm("exec", "box", command)
        assert machine.code == container.code == code
        assert same(machine.err, container.err)
    wrong = ("exec", "-w", "/no/such")
    assert vm(*wrong, "box", "true") == vm(*wrong, "other", "true")
    assert vm(*wrong, "box", "true").code == 126
    for user in ("nobody-here", "root:nobody-here"):
        unknown = vm("exec", "-u", user, "box", "true")
        assert unknown == vm("exec", "-u", user, "other", "true")
        assert unknown.code == 126
        assert unknown.err.startswith("sublet: The image has no ")
    for argv in (("run", "--rm", "-u", "nobody-here", IMAGE), run("-u", "nobody-here")):
        unknown = vm(*argv, "true")
        assert (unknown.code, "The image has no user" in unknown.err) == (125, True)


def test_killed_by_a_signal(vm: Sublet) -> None:
    assert vm(*run(), "sh", "-c", "kill -TERM $$").code == 143
    assert vm(*run(), "sh", "-c", "kill -9 $$").code == 137


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_pass_through(vm: Sublet, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 3' {name}; echo ready; while :; do sleep 0.1; done"
    process = vm.spawn(*run(), "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "caught\n")


def size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other end has been closed
        while wanted not in seen:
            seen += os.read(fd, 4096)
    assert wanted in seen, seen
    return seen


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_terminal_that_is_resized(vm: Sublet, verb: str) -> None:
    sized = "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done"  # it comes after the start
    script = f"{sized}; trap 'stty size; exit 5' WINCH; tty; stty size; while :; do sleep 0.1; done"
    argv = [*run("-it"), "sh", "-c", script]
    if verb == "exec":
        vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
        argv = ["exec", "-it", "box", "sh", "-c", script]
    controller, terminal = pty.openpty()
    size(controller, 33, 77)
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen([SUBLET, *argv], env=vm.env, start_new_session=True, **streams)  # type: ignore[call-overload]
    os.close(terminal)
    assert b"/dev/pts/0" in read_until(controller, b"33 77")
    size(controller, 44, 99)
    process.send_signal(signal.SIGWINCH)  # this terminal is nobody's controlling one
    read_until(controller, b"44 99")
    assert process.wait(30) == 5
    os.close(controller)


def test_exec_with_what_it_is_given(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "-e", "B=2", "--name", "box", IMAGE, *LOOP)
    flags = ("-u", "bin", "-w", "/tmp", "-e", "A=1")
    script = "id -un; id -gn; pwd; echo $A$B; exit 3"
    outcome = vm("exec", *flags, "box", "sh", "-c", script)
    assert (outcome.code, outcome.out.split()) == (3, ["bin", "bin", "/tmp", "12"])
    assert vm("exec", "-i", "box", "cat", input="word\n").out == "word\n"
    text = "y" * 200_000
    assert vm("exec", "-i", "box", "cat", input=text).out == text
    assert vm("exec", "box", "sh", "-c", "cat; echo err >&2", input="lost").err == "err\n"


def test_many_execs_at_once(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
    running = [vm.spawn("exec", "box", "sh", "-c", f"echo {n}; exit {n}") for n in range(8)]
    for number, process in enumerate(running):
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (number, f"{number}\n")


def test_where_and_as_whom(vm: Sublet) -> None:
    flags = ("-w", "/new/place", "-u", "bin", "--hostname", "box", "-e", "A=x y")
    script = "pwd; id -u; id -g; hostname; cat /etc/hostname; echo $A; echo $HOME"
    out = vm.ok(*run(*flags), "sh", "-c", script)
    assert out.splitlines() == ["/new/place", "2", "3", "box", "box", "x y", "/bin"]
    assert vm.ok(*run("-u", "1234:5"), "sh", "-c", "id -u; id -g") == "1234\n5"
    assert vm.ok("run", "--rm", *SMALL, "--entrypoint", "/bin/echo", IMAGE, "a", "b") == "a b"


def test_limits_names_and_kernel_settings(vm: Sublet) -> None:
    flags = ("--ulimit", "nofile=111:222", "--sysctl", "net.core.somaxconn=99", "--shm-size", "7m")
    names = ("--add-host", "far:10.1.2.3", "--dns", "9.9.9.9", "--dns-search", "example.org")
    script = (
        "ulimit -n; ulimit -Hn; cat /proc/sys/net/core/somaxconn; df -m /dev/shm | tail -1;"
        "grep far /etc/hosts; cat /etc/resolv.conf"
    )
    lines = vm.ok(*run(*flags, *names), "sh", "-c", script).splitlines()
    assert lines[:3] == ["111", "222", "99"]
    assert lines[3].split()[1] == "7"
    assert lines[4].split() == ["10.1.2.3", "far"]
    assert "nameserver 9.9.9.9" in lines
    assert "search example.org" in lines


def test_a_read_only_root(vm: Sublet) -> None:
    script = "touch /x; touch /etc/x; echo a > /tmp/x && echo tmp; touch /dev/shm/x && echo shm"
    outcome = vm(*run("--read-only", "--tmpfs", "/tmp:size=1m,mode=1700"), "sh", "-c", script)
    assert outcome.out.split() == ["tmp", "shm"]
    assert outcome.err.count("Read-only file system") == 2
    stat = "stat -c %a /tmp; df -m /tmp | tail -1"
    found = vm.ok(*run("--tmpfs", "/tmp:size=1m,mode=1700"), "sh", "-c", stat)
    assert found.split()[0] == "1700"
    assert found.split()[2] == "1"
