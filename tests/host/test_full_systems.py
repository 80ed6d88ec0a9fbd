"""Whole operating systems as VMs: an image with an init, and a real cloud disk with its seed.

One boot of each serves several tests, in their order: without KVM it takes a minute.
"""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BASE, Sublet, eventually
from disklab import cloud_disk
from imagelab import call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

BOOT = 900.0
"""Seconds that a system gets to come up on a busy host without KVM."""

EXAMPLE = Path(__file__).parents[2] / "examples" / "full-os"
SECRET = "correct-horse-battery"
USER_DATA = f"""#cloud-config
write_files:
- path: /root/made
  content: {SECRET}
  permissions: '0600'
runcmd:
- [sh, -c, 'echo ran >>/root/runs']
"""


@pytest.fixture(scope="module")
def host(base_file: Path) -> Iterator[Sublet]:
    """A daemon for these systems alone."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(base_file), "--trust", "-t", BASE)
    yield sublet
    sublet.clean()
    sublet.close()


@pytest.fixture(scope="module")
def cloud(host: Sublet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of a Debian cloud disk."""
    place = tmp_path_factory.mktemp("disk")
    disk = cloud_disk(place)
    host.ok("import", str(disk), "-t", "cloud", timeout=BOOT)
    disk.unlink()
    return "cloud"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tenant's own key."""
    file = tmp_path_factory.mktemp("key") / "id"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@here", "-f", file)
    return file


@pytest.fixture(scope="module")
def box(host: Sublet, cloud: str, key: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A VM of the cloud disk that has done what its user data says."""
    data = tmp_path_factory.mktemp("data") / "user-data"
    data.write_text(USER_DATA)
    flags = ["--name", "box", "--hostname", "cloudy", "--disk", "3g", "--user-data", str(data)]
    host.ok("run", "-d", "--vm", *flags, "--ssh-key", f"{key}.pub", cloud, timeout=BOOT)
    came_up(host, "box")
    return "box"


def came_up(host: Sublet, name: str) -> None:
    """Wait for what cloud-init leaves at its end. `cloud-init status` is a program in Python, which
    takes a guest without KVM as long as a part of its boot does."""

    def done() -> bool:
        told = host("exec", name, "cat", "/run/cloud-init/result.json", timeout=BOOT)
        if told.code == 0:
            assert json.loads(told.out)["v1"]["errors"] == [], last_words(host, name)
        return told.code == 0

    eventually(done, lambda: f"cloud-init of {name} is done; {last_words(host, name)}", BOOT, 1)


def last_words(host: Sublet, name: str) -> str:
    """What is known of a machine that does not come up."""
    log = host("exec", name, "tail", "-n", "20", "/var/log/cloud-init.log", timeout=BOOT)
    return f"its state: {host('inspect', name).out}; its log: {log}"


def shell(host: Sublet, name: str, command: str) -> str:
    return host.ok("exec", name, "sh", "-c", command, timeout=BOOT)


def test_the_seed_has_its_effect(host: Sublet, box: str) -> None:
    assert shell(host, box, "cat /root/made") == SECRET
    assert shell(host, box, "cat /root/runs") == "ran"
    assert shell(host, box, "hostname") == "cloudy"
    address = host.json("inspect", box)["address"]
    assert f" {address}/" in shell(host, box, "ip -br -4 address show eth0")
    assert shell(host, box, "cat /proc/1/comm") == "systemd"
    assert host.json("inspect", box)["isolation"] == "vm"


def test_the_disk_is_as_large_as_was_asked_for(host: Sublet, box: str) -> None:
    assert size_of_root(host, box) > 2_500_000
    told = host("update", "--disk", "5g", box)
    assert "5.0 GiB of disk when it starts again" in told.err


def size_of_root(host: Sublet, name: str) -> int:
    """In KiB."""
    return int(shell(host, name, "df --output=size /").splitlines()[-1])


def test_the_tenants_own_key_is_let_in(host: Sublet, box: str, key: Path) -> None:
    address = host.json("inspect", box)["address"]
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    done = call("ssh", "-i", key, *options, f"debian@{address}", "id -un")
    assert done.strip() == "debian"


def test_sublet_ssh_reaches_it(host: Sublet, box: str) -> None:
    assert host.ok("ssh", box, "uname -r; whoami", timeout=BOOT).splitlines() == [
        shell(host, box, "uname -r"),
        "root",
    ]
    assert "sublet-ssh" not in shell(host, box, "cat /root/.ssh/authorized_keys || :")


def test_user_data_is_nowhere_but_in_its_file(host: Sublet, box: str) -> None:
    instance = host.json("inspect", box)
    kept = host.root / "instances" / instance["id"] / "user-data"
    assert kept.read_text() == USER_DATA
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert SECRET not in json.dumps(instance)
    places = [
        *host.root.glob("sublet.db*"),
        *host.run_dir.rglob("*"),
        *Path("/proc").glob("[0-9]*/cmdline"),
    ]
    for path in places:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_fork_is_another_machine(host: Sublet, box: str) -> None:
    """It goes on in memory, with a name, an address, host keys and a seed of its own."""
    keys = shell(host, box, "cat /etc/ssh/ssh_host_ed25519_key.pub")
    fork = host.ok("fork", box, "--name", "twin", timeout=BOOT)
    assert shell(host, "twin", "cat /root/runs") == "ran"
    meta = json.loads(shell(host, "twin", "cat /var/lib/cloud/seed/nocloud/meta-data"))
    assert meta["instance-id"] == f"i-{fork}"
    eventually(  # the agent makes them in the background; RSA's take a slow CPU long
        lambda: shell(host, "twin", "cat /etc/ssh/ssh_host_ed25519_key.pub") != keys,
        "the fork has host keys of its own",
        BOOT,
        every=1,
    )
    mine, other = (shell(host, name, "cat /etc/machine-id") for name in (box, "twin"))
    assert mine != other
    assert host.ok("ssh", "twin", "hostname", timeout=BOOT) == shell(host, "twin", "hostname")
    shell(host, "twin", "echo changed >/root/made")
    assert shell(host, box, "cat /root/made") == SECRET
    host.ok("rm", "-f", "twin")


def test_what_it_wrote_is_there_after_a_stop_and_rolled_back(host: Sublet, box: str) -> None:
    shell(host, box, "echo first >/root/state; sync")
    host.ok("snapshot", box, "--name", "before", timeout=BOOT)
    shell(host, box, "echo second >/root/state; sync")
    host.ok("stop", "-t", "600", box, timeout=BOOT)
    assert host.json("inspect", box)["exit_code"] == 0
    host.ok("update", "--disk", "5g", box)
    host.ok("start", box, timeout=BOOT)
    came_up(host, box)
    assert shell(host, box, "cat /root/state /root/runs") == "second\nran"  # once per instance
    assert size_of_root(host, box) > 4_500_000
    host.ok("rollback", box, "before", timeout=BOOT)
    came_up(host, box)
    assert shell(host, box, "cat /root/state") == "first"
    host.ok("rm", "-f", box)


# An image with an init


@pytest.fixture(scope="module")
def system(host: Sublet) -> str:
    host.ok("build", str(EXAMPLE), "-t", "full-os", "-q", timeout=BOOT)
    return "full-os"


def running(host: Sublet, name: str) -> str:
    """What systemd says of itself."""
    return host("exec", name, "systemctl", "is-system-running", timeout=BOOT).out.strip()


def test_an_image_with_an_init_boots_as_a_system(host: Sublet, system: str) -> None:
    host.ok("run", "-d", "--vm", "--name", "os", system, timeout=BOOT)
    eventually(
        lambda: running(host, "os") == "running",
        lambda: (
            f"systemd is up: {running(host, 'os')}, {host('exec', 'os', 'systemctl', '--failed')}"
        ),
        BOOT,
        every=2,
    )
    assert shell(host, "os", "cat /proc/1/comm; systemctl is-active ssh") == "systemd\nactive"
    assert host.ok("ssh", "os", "cat /proc/1/comm") == "systemd"
    assert host("ssh", "os", "exit 9").code == 9
    host.ok("stop", "-t", "600", "os", timeout=BOOT)
    assert host.json("inspect", "os")["exit_code"] == 0
    host.ok("rm", "os")
