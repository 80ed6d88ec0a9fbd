"""`run` and `exec`: streams, exit codes, terminal, signals, what the flags do."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from clilab import talks
from conftest import BASE, SUBLET, Sublet, eventually


def test_output_errors_and_exit_code_pass_through(sublet: Sublet) -> None:
    outcome = sublet("run", "--rm", BASE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (outcome.code, outcome.out, outcome.err) == (7, "out\n", "err\n")
    assert sublet.json("ps", "-a", "--json") == []


def test_standard_input_passes_through(sublet: Sublet) -> None:
    text = "x" * 300_000 + "\n"
    outcome = sublet("run", "--rm", "-i", BASE, "cat", input=text)
    assert outcome.code == 0
    assert outcome.out == text


def test_without_interactive_input_is_empty(sublet: Sublet) -> None:
    assert sublet.ok("run", "--rm", BASE, "sh", "-c", "cat; echo end", input="lost") == "end"


def test_much_output_arrives_whole_and_in_order(sublet: Sublet) -> None:
    assert sublet.ok("run", "--rm", BASE, "seq", "200000").split() == [
        str(n) for n in range(1, 200001)
    ]


def test_command_killed_by_a_signal(sublet: Sublet) -> None:
    assert sublet("run", "--rm", BASE, "sh", "-c", "kill -9 $$; sleep 5").code in (0, 137)
    assert sublet("run", "--rm", BASE, "sh", "-c", "sh -c 'kill -TERM $$'").code == 143


def test_a_terminal(sublet: Sublet) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [SUBLET, "run", "--rm", "-it", BASE, "sh", "-c", "tty; read x; echo got-$x"],
        env=sublet.env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = _read_until(controller, b"/dev/pts/0")
    os.write(controller, b"word\r")
    seen += _read_until(controller, b"got-word")
    assert process.wait(30) == 0
    os.close(controller)


def _read_until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other end has been closed
        while wanted not in seen:
            seen += os.read(fd, 4096)
    assert wanted in seen
    return seen


def test_terminal_without_one_is_refused(sublet: Sublet) -> None:
    outcome = sublet("run", "--rm", "-it", BASE, "true")
    assert outcome.code == 125
    assert "not a terminal" in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_pass_through(sublet: Sublet, number: signal.Signals) -> None:
    script = (
        f"trap 'echo caught; exit 3' {number.name[3:]}; echo ready; while :; do sleep 0.1; done"
    )
    process = sublet.spawn("run", "--rm", BASE, "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "caught\n")


def test_third_interrupt_kills_what_ignores_the_first(sublet: Sublet) -> None:
    process = sublet.spawn("run", "--rm", BASE, "sh", "-c", "trap '' INT; echo ready; sleep 100")
    assert process.stdout is not None
    process.stdout.readline()
    for number in range(6):  # two that come at once are one to a busy machine
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.3 if number < 2 else 10)
            break
    process.communicate(timeout=30)
    assert process.returncode == 137


def test_environment(sublet: Sublet) -> None:
    sublet.extra["FROM_SHELL"] = "shell"
    try:
        out = sublet.ok(
            *("run", "--rm", "-e", "A=1", "--env=B=x y", "-e", "FROM_SHELL", "-e", "UNSET_HERE"),
            *(BASE, "env"),
        )
    finally:
        del sublet.extra["FROM_SHELL"]
    lines = out.splitlines()
    assert {"A=1", "B=x y", "FROM_SHELL=shell", "HOME=/root"} <= set(lines)
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)
    assert not any("SUBLET" in line or "UNSET_HERE" in line for line in lines)


def test_where_and_as_whom(sublet: Sublet) -> None:
    script = "pwd; id -u; id -g; hostname; cat /etc/hostname"
    flags = ("-w", "/var/tmp", "-u", "daemon", "--hostname", "box")
    out = sublet.ok("run", "--rm", *flags, BASE, "sh", "-c", script)
    assert out.split() == ["/var/tmp", "1", "1", "box", "box"]
    assert sublet.ok("run", "--rm", "-u", "1234:5", BASE, "sh", "-c", "id -u; id -g") == "1234\n5"


def test_a_missing_working_directory_is_made(sublet: Sublet) -> None:
    assert sublet.ok("run", "--rm", "-w", "/new/place", BASE, "pwd") == "/new/place"


def test_entrypoint(sublet: Sublet) -> None:
    assert sublet.ok("run", "--rm", "--entrypoint", "/bin/echo", BASE, "a", "b") == "a b"


def test_limits_hold(sublet: Sublet) -> None:
    outcome = sublet(
        "run", "--rm", "--memory", "32m", BASE, "sh", "-c", "head -c 200m /dev/zero | tail"
    )
    assert outcome.code != 0
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    outcome = sublet("run", "--rm", "--pids-limit", "4", BASE, "sh", "-c", script)
    assert "Cannot fork" in outcome.err
    shown = sublet.json("inspect", sublet.ok("run", "-d", "--cpus", "0.5", BASE, "sleep", "60"))
    assert shown["limits"]["cpus"] == 0.5
    assert shown["size"] == "0.5x0.5"


def test_cpu_limit_slows_down(sublet: Sublet) -> None:
    instance = sublet.ok("run", "-d", "--cpus", "0.2", BASE, "sh", "-c", "while :; do :; done")
    pid = sublet.json("inspect", instance)["pid"]

    def ticks() -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11])

    import time

    before, start = ticks(), time.monotonic()
    eventually(lambda: time.monotonic() - start > 2, "two seconds")
    used = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)
    assert used < 0.4


def test_published_port_answers_on_loopback(sublet: Sublet) -> None:
    script = "apt-get --version >/dev/null; exec perl -MIO::Socket -e '" + (
        "my $s = IO::Socket::INET->new(LocalPort=>80,Listen=>5,ReuseAddr=>1) or die;"
        'while (my $c = $s->accept) { print $c "hello\\n"; close $c }\''
    )
    sublet.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", BASE, "sh", "-c", script)
    port = sublet.json("inspect", "web")["ports"][0]["host_port"]
    assert port > 0

    def answer() -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 5) as connection,
        ):
            return connection.recv(100) == b"hello\n"
        return False

    eventually(answer, "the port answers hello")


def test_mounts(sublet: Sublet, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside\n")
    flags = ("-v", f"{tmp_path}:/data", "-v", f"{tmp_path / 'in'}:/etc/in:ro")
    script = "cat /etc/in; echo new > /data/out; echo x > /etc/in || echo refused"
    out = sublet.ok("run", "--rm", *flags, BASE, "sh", "-c", script)
    assert out == "from outside\nrefused"
    written = tmp_path / "out"
    assert written.read_text() == "new\n"
    assert (written.stat().st_uid, written.stat().st_gid) == (0, 0)


def test_detached_prints_the_id_alone(sublet: Sublet) -> None:
    outcome = sublet("run", "-d", "--name", "quiet", BASE, "sleep", "60")
    assert outcome.err == ""
    assert sublet.json("inspect", "quiet")["id"] == outcome.out.strip()


def test_logs_and_follow(sublet: Sublet) -> None:
    script = "echo one; echo two >&2; sleep 0.5; echo three"
    instance = sublet.ok("run", "-d", BASE, "sh", "-c", script)
    outcome = sublet("logs", "-f", instance)
    assert (outcome.code, outcome.out, outcome.err) == (0, "one\nthree\n", "two\n")
    assert sublet.ok("wait", instance) == "0"
    assert sublet("logs", instance).out == "one\nthree\n"


def test_exec(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", "-e", "A=1", BASE, "sleep", "100")
    outcome = sublet("exec", "-e", "B=2", "box", "sh", "-c", "echo $A$B; echo e >&2; exit 9")
    assert (outcome.code, outcome.out, outcome.err) == (9, "12\n", "e\n")
    assert sublet.ok("exec", "-i", "box", "cat", input="piped") == "piped"
    assert (
        sublet.ok("exec", "-u", "daemon", "-w", "/tmp", "box", "sh", "-c", "id -u; pwd")
        == "1\n/tmp"
    )
    missing = sublet("exec", "box", "nosuch")
    assert missing.code == 127
    assert missing.err.count("nosuch") == 1
    assert sublet("exec", "box", "/etc/passwd").code == 126
    assert sublet("exec", "nobody-here", "true").code == 1


def test_exec_stays_in_the_limits(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "small", "--memory", "32m", BASE, "sleep", "100")
    assert sublet("exec", "small", "sh", "-c", "head -c 200m /dev/zero | tail").code != 0


def test_exec_with_a_terminal(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "100")
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [SUBLET, "exec", "-it", "box", "sh"],
        env=sublet.env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    os.write(controller, b"stty size; exit 4\r")
    _read_until(controller, b"0 0")
    assert process.wait(30) == 4
    os.close(controller)


def test_stop_kill_wait_rm(sublet: Sublet) -> None:
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"
    instance = sublet.ok("run", "-d", "--name", "one", BASE, "sh", "-c", script)
    eventually(lambda: "up" in sublet.ok("logs", "one"), "the trap is set")
    sublet.ok("stop", "one")
    assert sublet.ok("wait", instance) == "5"
    assert sublet.ok("stop", "one") == "one"  # a stopped one is fine
    assert sublet.json("inspect", "one")["state"] == "stopped"
    sublet.ok("rm", "one")
    assert sublet("inspect", "one").code == 1
    sublet.ok("run", "-d", "--name", "two", BASE, "sleep", "100")
    refused = sublet("rm", "two")
    assert refused.code == 1
    assert "sublet stop two" in refused.err
    sublet.ok("kill", "two")
    assert sublet.ok("wait", "two") == "137"
    sublet.ok("rm", "-f", "two", "never-there")
    assert sublet("rm", "never-there").code == 1


def test_remove_on_exit_in_the_background(sublet: Sublet) -> None:
    script = "until test -e /go; do sleep 0.05; done; exit 4"
    instance = sublet.ok("run", "-d", "--rm", BASE, "sh", "-c", script)
    waiting = sublet.spawn("wait", instance)
    talks(waiting)
    sublet("exec", instance, "touch", "/go")
    assert waiting.communicate(timeout=60)[0] == "4\n"
    eventually(lambda: sublet.json("ps", "-a", "--json") == [], "it is deleted")


def test_export(sublet: Sublet, tmp_path: Path) -> None:
    import tarfile

    sublet.ok(
        "run", "-d", "--name", "box", BASE, "sh", "-c", "echo hi > /new; chown 7:8 /new; sleep 99"
    )
    eventually(lambda: sublet("exec", "box", "stat", "/new").code == 0, "/new")
    for state in ("running", "stopped"):
        file = tmp_path / f"{state}.tar"
        sublet.ok("export", "box", "-o", str(file))
        with tarfile.open(file) as tar:
            member = tar.getmember("./new")
            assert (member.uid, member.gid, member.size) == (7, 8, 3)
            assert tar.getmember("./etc/passwd").uid == 0
        sublet.ok("stop", "-t", "0", "box")


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_streams_can_be_opened_by_their_names(sublet: Sublet, user: str) -> None:
    script = "echo out > /dev/stdout; echo err > /dev/stderr"
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "100")
    for verb in (("run", "--rm", "-u", user, BASE), ("exec", "-u", user, "box")):
        outcome = sublet(*verb, "sh", "-c", script)
        assert (outcome.code, outcome.out, outcome.err) == (0, "out\n", "err\n")


@pytest.mark.slow
def test_a_reader_that_pauses_loses_nothing(sublet: Sublet) -> None:
    """Longer than any keep-alive that a server has of its own accord."""
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "600")
    process = sublet.spawn("exec", "box", "sh", "-c", "yes | head -c 5000000")
    time.sleep(50)
    out, _ = process.communicate(timeout=60)
    assert (len(out), process.returncode) == (5_000_000, 0)
