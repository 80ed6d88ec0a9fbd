"""What an instance cannot see or do, and what the host keeps."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from conftest import BASE, Sublet, eventually


def test_root_inside_is_nobody_outside(sublet: Sublet) -> None:
    first = sublet.json("inspect", sublet.ok("run", "-d", BASE, "sleep", "60"))
    second = sublet.json("inspect", sublet.ok("run", "-d", BASE, "sleep", "60"))
    uids = [os.stat(f"/proc/{each['pid']}").st_uid for each in (first, second)]
    assert uids[0] >= 1 << 29
    assert abs(uids[0] - uids[1]) >= 65536


def test_no_new_privileges_few_capabilities_seccomp(sublet: Sublet) -> None:
    status = sublet.ok("run", "--rm", BASE, "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0
    bounding = int(fields["CapBnd"], 16)
    for bit in (12, 13, 16, 17, 19, 21, 27):  # net_admin, net_raw, modules, rawio, ptrace, mknod
        assert not bounding >> bit & 1


def test_seccomp_refuses_kernel_crypto_sockets(sublet: Sublet) -> None:
    script = 'socket(S, 38, 5, 0) and print "open"; socket(T, 2, 1, 0) and print "inet"'
    assert sublet.ok("run", "--rm", BASE, "perl", "-e", script) == "inet"


def test_hosts_null_device_keeps_its_owner(sublet: Sublet) -> None:
    sublet.ok("run", "--rm", BASE, "true")
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "60")
    sublet.ok("exec", "box", "true")
    found = os.stat("/dev/null")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o666)


def test_instances_do_not_see_each_other_or_the_host(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "other", BASE, "sleep", "4242")
    script = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /sys/class/net; ls /sys/fs/cgroup"
    out = sublet.ok("run", "--rm", BASE, "sh", "-c", script)
    assert "4242" not in out
    assert "sublet" not in out
    assert "veth" not in out


def test_writes_stay_in_the_instance(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "writer", BASE, "sh", "-c", "echo mine > /file; sleep 60")
    eventually(lambda: sublet("exec", "writer", "cat", "/file").out == "mine\n", "/file")
    assert sublet("run", "--rm", BASE, "cat", "/file").code == 1


def test_proc_and_sys_are_masked(sublet: Sublet) -> None:
    script = "cat /proc/keys /proc/timer_list | wc -c; echo 1 > /proc/sys/kernel/panic"
    outcome = sublet("run", "--rm", BASE, "sh", "-c", script)
    assert outcome.out.strip() == "0"
    assert outcome.code != 0


def test_processes_cannot_leave_their_cgroup(sublet: Sublet) -> None:
    script = "mkdir /sys/fs/cgroup/x 2>&1; echo 1 > /sys/fs/cgroup/cgroup.procs"
    outcome = sublet("run", "--rm", BASE, "sh", "-c", script)
    assert outcome.code != 0
    assert "Read-only" in outcome.out or "denied" in outcome.out


def test_names_resolve_between_instances(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "database", "--hostname", "db", BASE, "sleep", "60")
    address = sublet.json("inspect", "database")["address"]
    for name in ("database", "db"):
        out = sublet.ok("run", "--rm", BASE, "getent", "hosts", name)
        assert out.split()[0] == address


def test_resolver_and_hosts_files(sublet: Sublet) -> None:
    out = sublet.ok(
        "run", "--rm", "--hostname", "me", BASE, "cat", "/etc/hosts", "/etc/resolv.conf"
    )
    assert "localhost" in out
    assert "\tme" in out
    assert "nameserver" in out


def test_an_image_with_links_for_system_directories(sublet: Sublet, tmp_path: Path) -> None:
    """An image that has links at /dev, /proc, /sys, /etc gets real directories instead."""
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    target = tmp_path / "outside"
    target.mkdir()
    shutil.copy("/bin/busybox", tree / "bin/sh")
    for name in ("dev", "proc", "sys", "etc"):
        (tree / name).symlink_to(f"../../../../../../..{target}")
    file = tmp_path / "links.sif"
    sublet.ok("pack", str(tree), "-o", str(file))
    before = sorted(target.iterdir())
    out = sublet.ok("run", "--rm", str(file), "/bin/sh", "-c", "echo up; : > /etc/x")
    assert out == "up"
    assert sorted(target.iterdir()) == before


def test_a_pipe_for_passwd_does_not_hang(sublet: Sublet) -> None:
    sublet.ok(
        "run",
        "-d",
        "--name",
        "trap",
        BASE,
        "sh",
        "-c",
        "rm /etc/passwd; mkfifo /etc/passwd; echo ok; sleep 60",
    )
    eventually(lambda: "ok" in sublet.ok("logs", "trap"), "the pipe is there")
    assert sublet("exec", "-u", "0", "trap", "true", timeout=60).code == 0
    assert "no user" in sublet("exec", "-u", "daemon", "trap", "true", timeout=60).err
