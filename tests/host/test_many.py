"""Many on one host: 448 containers of 2 vCPUs, as a user would see them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import BASE, Sublet

from sublet.sdk import Client, Instance

COUNT, WIDTH = 448, 8
LIMITS = "/sys/fs/cgroup"

SERVER = (
    "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(7, INADDR_ANY)) or die;"
    'listen(S, 8); while (accept(C, S)) { syswrite(C, "hello\n"); close C }'
)
CLIENT = "exec 3<>/dev/tcp/many0/7; read -r line <&3; echo $line"


@pytest.fixture
def host(base_file: Path) -> Iterator[Sublet]:
    """A daemon that sells each CPU of the host 512 times, with the base image."""
    home = Path(tempfile.mkdtemp(prefix="sublet-"))
    sublet = Sublet(home, {"SUBLET_OVERCOMMIT": "512"})
    sublet.ok("import", str(base_file), "--trust", "-t", BASE)
    yield sublet
    sublet.clean()
    sublet.close()


def limits(instance: str, file: str) -> set[str]:
    """What the kernel has in a file of the instance's cgroup, wherever that is mounted."""
    found = [*Path(LIMITS).glob(f"*/sublet*/{instance}/{file}")]
    found += Path(LIMITS).glob(f"sublet*/{instance}/{file}")
    return {path.read_text().strip() for path in found}


def assert_limited(row: dict[str, Any]) -> None:
    """2 vCPUs, 31 MiB, on cgroups of either version."""
    instance = row["id"]
    assert (row["limits"]["cpus"], row["limits"]["memory"]) == (2, 31 << 20)
    quota = limits(instance, "cpu.cfs_quota_us") | limits(instance, "cpu.max")
    assert quota in ({"200000"}, {"200000 100000"})
    memory = limits(instance, "memory.limit_in_bytes") | limits(instance, "memory.max")
    assert memory == {str(31 << 20)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_448_containers_of_2_cpus(host: Sublet) -> None:
    client = Client(str(host.run_dir / "sublet.sock"))

    def start(number: int) -> Instance:
        command = ["sleep", "100000"] if number else ["perl", "-e", SERVER]
        return client.run(BASE, command, name=f"many{number}", cpus=2, memory="31m")

    with ThreadPoolExecutor(WIDTH) as pool:
        made = list(pool.map(start, range(COUNT)))
        rows = list(pool.map(lambda instance: instance.inspect(), made))
        assert {row["state"] for row in rows} == {"running"}
        assert len({row["address"] for row in rows}) == COUNT
        for row in rows:
            assert_limited(row)
        assert len(host.ok("ps", "-q").split()) == COUNT
        for number in (1, COUNT // 2, COUNT - 1):
            reached = made[number].exec(["bash", "-c", CLIENT])
            assert (reached.exit_code, reached.stdout) == (0, "hello\n"), reached
        list(pool.map(lambda instance: instance.remove(force=True), made))
    assert host.json("ps", "-a", "--json") == []
    assert host.json("audit", "--json") == []
