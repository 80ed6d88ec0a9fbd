"""A fork of a database that is being written to holds every row that was committed before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Sublet, eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "postgres-15"
DATA = "/var/lib/postgresql/data"
PSQL = ("psql", "-U", "postgres", "-Atc")
WRITER = (
    "i=0; while :; do i=$((i+1)); "
    'psql -qU postgres -c "insert into t values ($i, repeat(md5(random()::text), 30))" || exit; '
    "echo $i; done"
)


@pytest.fixture(scope="module")
def image(shared: Sublet) -> Iterator[str]:
    shared.ok("build", str(EXAMPLE), "-t", "postgres-forked", timeout=900)
    yield "postgres-forked"
    shared.ok("rmi", "postgres-forked")


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [(), ("-v", DATA), ("--disk", "2g")], ids=["layer", "volume", "disk"]
)
def test_every_committed_row(
    sublet: Sublet, image: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    env = ("-e", "POSTGRES_HOST_AUTH_METHOD=trust", "-m", "512m")
    sublet.ok("run", "-d", "--name", "db", *env, *flags, image)
    eventually(lambda: sublet("exec", "db", "pg_isready").code == 0, "the database answers", 120)
    sublet.ok("exec", "db", *PSQL, "create table t (i int primary key, x text)")
    told = tmp_path / "committed"
    with told.open("w") as output:
        writer = sublet.spawn("exec", "db", "sh", "-c", WRITER, stdout=output)
    try:
        for number in range(3):
            seen = committed(told)
            eventually(lambda seen=seen: committed(told) > seen + 20, "rows are written", 120)
            before = committed(told)
            fork = sublet.ok("fork", "db", "--name", f"fork{number}")
            after = committed(told)
            check(sublet, fork, before, after)
            sublet.ok("rm", "-f", "-v", fork)
        assert writer.poll() is None, "the writer was disturbed"
    finally:
        writer.terminate()
        writer.communicate(timeout=60)
        sublet.ok("rm", "-f", "-v", "db")


def committed(told: Path) -> int:
    """The last row that the database has confirmed."""
    return int((told.read_text().splitlines() or ["0"])[-1])


def check(sublet: Sublet, fork: str, before: int, after: int) -> None:
    """The fork recovers, and has all rows up to one between the two, without a gap."""
    eventually(lambda: sublet("exec", fork, "pg_isready").code == 0, "the fork answers", 120)
    query = "select count(*), coalesce(max(i), 0), coalesce(sum(length(x)), 0) from t"
    eventually(lambda: sublet("exec", fork, *PSQL, "select 1").code == 0, "it has recovered", 120)
    count, last, length = map(int, sublet.ok("exec", fork, *PSQL, query).split("|"))
    assert count == last
    assert before <= last <= after + 1
    assert length == count * 32 * 30
    sublet.ok("exec", fork, *PSQL, "insert into t values (-1, 'its own')")
