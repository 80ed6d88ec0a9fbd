"""What the options of `run` change, seen from inside."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import refused
from conftest import BASE, Sublet, eventually


def status(sublet: Sublet, *flags: str) -> dict[str, str]:
    """/proc/self/status of a process in an instance with these flags."""
    text = sublet.ok("run", "--rm", *flags, BASE, "cat", "/proc/self/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_capabilities(sublet: Sublet) -> None:
    found = status(sublet, "--cap-drop", "ALL", "--cap-add", "net_raw")
    assert {int(found[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {1 << 13}
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    user = status(sublet, "--cap-add", "NET_RAW", "--user", "1000")
    assert int(user["CapBnd"], 16) >> 13 & 1
    assert int(user["CapEff"], 16) == 0


def test_what_the_host_lacks_is_said(sublet: Sublet) -> None:
    host = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":\t" in line
    )
    own = int(host["CapBnd"], 16)
    missing = [bit for bit in range(41) if not own >> bit & 1]
    done = sublet("run", "-d", "--name", "all", "--cap-add", "ALL", BASE, "sleep", "60")
    assert done.code == 0
    assert done.err.count("warning: CAP_") == len(missing)
    assert len(sublet.json("inspect", "all")["warnings"]) == len(missing)
    inside = sublet.ok("exec", "all", "grep", "CapEff", "/proc/self/status")
    assert int(inside.split()[1], 16) == own


def test_seccomp_profiles(sublet: Sublet, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {
                "names": ["unlinkat", "unlink"],
                "action": "SCMP_ACT_ERRNO",
                "excludes": {"caps": ["CAP_NET_RAW"]},
            },
        ],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    option = f"seccomp={tmp_path}/profile.json"
    script = "mkdir /d; touch /f; rm /f; echo end"
    done = sublet("run", "--rm", "--security-opt", option, BASE, "sh", "-c", script)
    assert (done.out, done.code) == ("end\n", 0)
    assert "'/d': Permission denied" in done.err
    assert "'/f': Operation not permitted" in done.err
    done = sublet(
        *("run", "--rm", "--cap-add", "NET_RAW", "--security-opt", option, BASE, "sh", "-c", script)
    )
    assert "/f" not in done.err
    assert status(sublet, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    (tmp_path / "deep.json").write_text("[" * 200_000)
    refused(sublet, "run", "--security-opt", f"seccomp={tmp_path}/deep.json", BASE, "true")


def test_sysctls(sublet: Sublet) -> None:
    wanted = {
        **{"net.core.somaxconn": "99", "kernel.shmmax": "123456"},
        **{"fs.mqueue.msg_max": "33", "kernel.sem": "10 20 30 40"},
    }
    flags = [word for name, value in wanted.items() for word in ("--sysctl", f"{name}={value}")]
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in wanted]
    out = sublet.ok("run", "--rm", *flags, BASE, "cat", *files)
    assert [" ".join(line.split()) for line in out.splitlines()] == list(wanted.values())
    refused(sublet, "run", "--sysctl", "net.no.such=1", BASE, "true", says="sysctl")
    refused(sublet, "run", "--sysctl", "net.core.rmem_max=1", BASE, "true", says="sysctl")
    refused(sublet, "run", "--sysctl", "kernel.panic=1", BASE, "true", says="own")


def test_limits(sublet: Sublet) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -Hc"
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=0")
    sublet.ok("run", "-d", "--name", "limited", *flags, BASE, "sleep", "60")
    assert sublet.ok("exec", "limited", "sh", "-c", script).split() == ["100", "200", "0"]
    soft, hard = sublet.ok("run", "--rm", BASE, "sh", "-c", "ulimit -Sn; ulimit -Hn").split()
    assert int(soft) == 1024
    assert 1024 <= int(hard) <= 524288


def test_a_limit_above_the_hosts_is_refused_before_the_start(sublet: Sublet) -> None:
    own = int(
        subprocess.run(
            ["sh", "-c", "ulimit -Hn"], capture_output=True, text=True, check=True
        ).stdout
    )
    caps = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    if caps >> 24 & 1:  # CAP_SYS_RESOURCE: this host can raise it
        out = sublet.ok(
            "run", "--rm", "--ulimit", f"nofile={own + 1}", BASE, "sh", "-c", "ulimit -n"
        )
        assert out == str(own + 1)
    else:
        refused(sublet, "run", "--ulimit", f"nofile={own + 1}", BASE, "true", says=str(own))


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A loop device that holds `sublet` and nothing else."""
    file = tmp_path / "disk"
    file.write_bytes(b"sublet".ljust(1 << 20, b"\0"))
    made = subprocess.run(
        ["losetup", "--find", "--show", str(file)], capture_output=True, text=True, check=True
    )
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_device_is_passed_on_with_its_rights(sublet: Sublet, loop: str) -> None:
    before = os.stat(loop)
    script = "head -c 6 /dev/disk0; echo; chmod 666 /dev/disk0; echo x > /dev/disk0; echo end"
    done = sublet("run", "--rm", "--device", f"{loop}:/dev/disk0:r", BASE, "sh", "-c", script)
    assert done.out == "sublet\nend\n"
    assert done.err.count("denied") + done.err.count("not permitted") == 2
    script = "printf SUB > /dev/disk0 && head -c 6 /dev/disk0"
    assert sublet.ok("run", "--rm", "--device", f"{loop}:/dev/disk0", BASE, "sh", "-c", script) == (
        "SUBlet"
    )
    script = "head -c 6 /dev/disk0"
    for flags in ((), ("--user", "1000")):
        device = ("--device", f"{loop}:/dev/disk0:rw")
        assert sublet.ok("run", "--rm", *flags, *device, BASE, "sh", "-c", script) == "SUBlet"
    after = os.stat(loop)
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )


def test_a_tunnel_can_be_made_with_its_device(sublet: Sublet) -> None:
    script = (
        "use strict; open(my $f, '+<', '/dev/net/tun') or die $!;"
        "my $r = pack('Z16 s x22', 'tap7', 0x1002);"
        "ioctl($f, 0x400454ca, $r) or die $!; print 'made'"
    )
    flags = ("--device", "/dev/net/tun", "--cap-add", "NET_ADMIN")
    assert sublet.ok("run", "--rm", *flags, BASE, "perl", "-e", script) == "made"


def test_devices_that_are_not_passed_on(sublet: Sublet) -> None:
    refused(sublet, "run", "--device", "/dev/not-there", BASE, "true", says="/dev/not-there")
    refused(sublet, "run", "--device", "/etc/passwd", BASE, "true", says="not a device")
    refused(sublet, "run", "--device", "/dev/fuse:/dev/null", BASE, "true", says="its own")
    out = sublet("run", "--rm", "--cap-add", "MKNOD", BASE, "mknod", "/tmp/sda", "b", "8", "0")
    assert "not permitted" in out.err


def test_a_read_only_root(sublet: Sublet) -> None:
    script = (
        "touch /x; echo a >> /etc/hosts; echo a > /etc/resolv.conf;"
        "echo shm > /dev/shm/x && cat /dev/shm/x; echo dev > /dev/new && cat /dev/new"
    )
    done = sublet("run", "--rm", "--read-only", BASE, "sh", "-c", script)
    assert done.out == "shm\ndev\n"
    assert done.err.count("Read-only file system") == 3


def test_shared_memory(sublet: Sublet) -> None:
    script = "df -k --output=size /dev/shm | tail -1"
    assert sublet.ok("run", "--rm", BASE, "sh", "-c", script).strip() == "65536"
    out = sublet.ok("run", "--rm", "--shm-size", "128m", BASE, "sh", "-c", script)
    assert out.strip() == "131072"


def test_further_groups(sublet: Sublet) -> None:
    flags = ("--group-add", "audio", "--group-add", "4242", "--user", "daemon")
    sublet.ok("run", "-d", "--name", "member", *flags, BASE, "sleep", "60")
    assert sublet.ok("exec", "member", "id", "-G") == "1 29 4242"
    refused(sublet, "run", "--group-add", "nowhere", BASE, "true", says="no group")


def test_an_init_reaps_what_is_orphaned(sublet: Sublet) -> None:
    script = "(sh -c 'sleep 0.1 & echo $! > /orphan' ); while :; do sleep 0.2; done"
    sublet.ok("run", "-d", "--init", "--name", "reaping", BASE, "sh", "-c", script)
    sublet.ok("run", "-d", "--name", "not", BASE, "perl", "-e", _ORPHAN)
    gone = "test -s /orphan && ! test -d /proc/$(cat /orphan)"
    eventually(lambda: sublet("exec", "reaping", "sh", "-c", gone).code == 0, "reaped")
    stays = "test -s /orphan && grep -q 'State:.Z' /proc/$(cat /orphan)/status"
    eventually(lambda: sublet("exec", "not", "sh", "-c", stays).code == 0, "a zombie without it")
    assert "/dev/init" in sublet.ok("exec", "reaping", "cat", "/proc/1/cmdline")


_ORPHAN = (
    "if (!fork) { if (my $p = fork) { open F, '>/orphan'; print F $p; close F; exit }"
    " select undef, undef, undef, 0.1; exit } sleep 60"
)


def test_an_init_passes_signals_and_exit_codes_on(sublet: Sublet) -> None:
    assert sublet("run", "--rm", "--init", BASE, "sh", "-c", "exit 7").code == 7
    assert sublet("run", "--rm", "--init", BASE, "no-such-command").code == 127
    script = "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.1; done"
    flags = ("--init", "--stop-signal", "USR1")
    sublet.ok("run", "-d", "--name", "told", *flags, BASE, "sh", "-c", script)
    eventually(lambda: "up" in sublet.ok("logs", "told"), "up")
    sublet.ok("stop", "told")
    assert sublet.json("inspect", "told")["exit_code"] == 3
    assert "got" in sublet.ok("logs", "told")


def test_names(sublet: Sublet) -> None:
    flags = ("--add-host", "db:10.9.8.7", "--add-host", "up:host-gateway")
    flags += ("--dns", "9.9.9.9", "--dns-search", "example.org")
    sublet.ok("run", "-d", "--name", "named", *flags, BASE, "sleep", "60")
    assert sublet.ok("exec", "named", "getent", "hosts", "db").split()[0] == "10.9.8.7"
    assert sublet.ok("exec", "named", "getent", "hosts", "up").split()[0].startswith("10.")
    text = sublet.ok("exec", "named", "cat", "/etc/resolv.conf")
    assert "nameserver 9.9.9.9\n" in text
    assert "search example.org\n" in text
    assert text.count("nameserver") == 1


def test_files_of_variables_and_labels(sublet: Sublet, tmp_path: Path) -> None:
    variables = "# a comment\n\n A=1\nB='quoted'\nC=a=b # kept\nFROM_HERE\nUNSET_HERE\nexport D=4\n"
    (tmp_path / "env").write_text(variables)
    (tmp_path / "labels").write_text("tier=web\nempty\n")
    refused(sublet, "run", "--env-file", str(tmp_path), BASE, "env", says="directory")
    sublet.extra["FROM_HERE"] = "host"
    try:
        flags = ("--env-file", str(tmp_path / "env"), "-e", "A=2")
        refused(sublet, "run", *flags, BASE, "env", says="export D")
        (tmp_path / "env").write_text(variables.replace("export D=4\n", ""))
        flags += ("--label-file", str(tmp_path / "labels"), "--label", "tier=db")
        sublet.ok("run", "-d", "--name", "labelled", *flags, BASE, "sleep", "60")
    finally:
        del sublet.extra["FROM_HERE"]
    out = sublet.ok("exec", "labelled", "env").splitlines()
    assert {"A=2", "B='quoted'", "C=a=b # kept", "FROM_HERE=host"} <= set(out)
    assert not [line for line in out if line.startswith("UNSET_HERE")]
    labels = sublet.json("inspect", "labelled")["labels"]
    assert labels["tier"] == "db"
    assert labels["empty"] == ""


def test_the_nodes_of_devices_are_for_the_instance_alone(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "fused", "--device", "/dev/fuse", BASE, "sleep", "60")
    found = sublet.json("inspect", "fused")
    with open("/proc/self/mountinfo") as file:
        points = [line.split(" ")[4] for line in file]
    (place,) = [p for p in points if p.endswith("/devices") and found["id"] in p]
    top = os.stat(place)
    assert stat.S_IMODE(top.st_mode) == 0o500
    assert top.st_uid == found["uid_base"]


def test_all_capabilities_do_not_reach_beyond_the_instance(sublet: Sublet) -> None:
    """Each of these would be the host's end under an engine without user namespaces."""
    attempts = {
        "a sysctl of the host": "mount -o remount,rw /proc/sys; echo 1 > /proc/sys/kernel/panic",
        "a fresh proc": "mount -t proc p /mnt && echo 1 > /mnt/sys/kernel/panic",
        "the key of a sick kernel": "mount -t proc p /mnt && echo h > /mnt/sysrq-trigger",
        "a release agent": "mount -t cgroup -o memory c /mnt && echo /x > /mnt/release_agent",
        "its own limit, v1": (
            "mount -t cgroup -o memory c /mnt && echo -1 > /mnt/memory.limit_in_bytes"
        ),
        "its own limit, v2": "mount -t cgroup2 c /mnt && echo max > /mnt/memory.max",
        "a disk": "mknod /tmp/disk b $(cat /sys/class/block/*/dev | head -1 | tr : ' ')",
        "the clock": "date -s @$(date +%s)",
        "memory of the kernel": "head -c 1 /proc/kcore | grep -q .",
    }
    flags = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")
    script = "".join(
        f"( {attempt} ) > /dev/null 2>&1 && echo '{name}'\n" for name, attempt in attempts.items()
    )
    names = sublet.ok("run", "--rm", *flags, BASE, "bash", "-c", f"{script}true")
    assert names == ""
