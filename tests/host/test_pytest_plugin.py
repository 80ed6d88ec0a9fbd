"""The pytest plugin: real suites in processes of their own, against real databases."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Sublet, eventually

pytestmark = pytest.mark.timeout(900)  # the image is built

EXAMPLE = Path(__file__).parents[2] / "examples" / "tested-with-postgres"
POSTGRES = "postgres:15"

CONFTEST = f"""
import os
from sublet.pytest_plugin import sublet_service

def sql(db, text):
    done = db.exec(["psql", "-XAtqU", "postgres", "-c", text])
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()

def migrate(db):
    with open(os.environ["PREPARED"], "a") as told:
        print(os.getpid(), file=told)
    sql(db, "CREATE TABLE t (n int)")

db = sublet_service({POSTGRES!r}, prepare=migrate)
wide = sublet_service({POSTGRES!r}, prepare=migrate, scope="session")
"""


@pytest.fixture(scope="module", autouse=True)
def _database(shared: Sublet) -> None:
    """The catalogue's image, built once."""
    shared.ok("pull", POSTGRES, timeout=600)


class Suite:
    """A project with tests, in a directory of its own."""

    def __init__(self, sublet: Sublet, place: Path) -> None:
        self.sublet, self.place = sublet, place
        self.prepared = place / "prepared"
        (place / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        (place / "conftest.py").write_text(CONFTEST)

    def spawn(self, tests: str, *flags: str) -> subprocess.Popen[str]:
        (self.place / "test_it.py").write_text(f"from conftest import sql\n{tests}")
        plain = ("-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "-p", "no:timeout")
        env = {k: v for k, v in self.sublet.env.items() if not k.startswith("PYTEST_")}
        base = self.place.parent / f"{self.place.name}-base"
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *plain, f"--basetemp={base}", *flags],
            cwd=self.place,
            env={**env, "PREPARED": str(self.prepared)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, tests: str, *flags: str) -> tuple[int, str]:
        """The exit code, and what it printed."""
        process = self.spawn(tests, *flags)
        said, _ = process.communicate(timeout=240)
        return process.returncode, said

    def times_prepared(self) -> int:
        return len(self.prepared.read_text().split())


@pytest.fixture
def suite(sublet: Sublet, tmp_path: Path) -> Suite:
    place = tmp_path / "suite"
    place.mkdir()
    return Suite(sublet, place)


def rows(sublet: Sublet) -> list[str]:
    return [row["name"] for row in sublet.json("ps", "-a", "--json")]


EACH_ITS_OWN = """
import pytest

@pytest.mark.parametrize("n", range(4))
def test_alone(db, n):
    assert sql(db, "TABLE t") == ""
    sql(db, f"INSERT INTO t VALUES ({n})")
    assert sql(db, "TABLE t") == str(n)

def test_where(db):
    assert db.url == f"postgresql://postgres:postgres@{db.host}:5432/postgres"
    assert (db.image, db.port, db.environment["POSTGRES_DB"]) == ("postgres:15", 5432, "postgres")
    assert db.exec("echo $HOSTNAME; exit 3").exit_code == 3
    assert "ready to accept connections" in db.logs()
"""


@pytest.mark.parametrize("flags", [(), ("-n", "2")], ids=["serial", "two-workers"])
def test_each_test_has_a_fork_of_what_was_prepared_once(
    suite: Suite, flags: tuple[str, ...]
) -> None:
    code, said = suite.run(EACH_ITS_OWN, *flags)
    assert (code, "5 passed" in said) == (0, True), said
    assert suite.times_prepared() == 1
    eventually(lambda: rows(suite.sublet) == [], "all gone")


def test_a_failure_shows_the_log_and_may_keep_the_instance(suite: Suite) -> None:
    tests = """
import subprocess
import pytest

def test_wrong(wide):
    subprocess.run(["psql", wide.url, "-c", "SELECT nonsense"])
    assert False

def test_same(wide, db):
    assert wide.id != db.id

def test_factory(sublet_service):
    a, b = sublet_service("postgres:15"), sublet_service("postgres:15")
    sql(a, "CREATE TABLE t (n int)")
    sql(b, "CREATE TABLE t (n int)")
    with pytest.raises(pytest.fail.Exception, match="no-such-image"):
        sublet_service("./no-such-image.sif")
"""
    code, said = suite.run(tests, "--sublet-keep")
    assert (code, "1 failed, 2 passed" in said) == (1, True), said
    assert 'column "nonsense" does not exist' in said.partition("wrote last")[2]
    assert suite.times_prepared() == 1  # for both fixtures: it is the same function
    found = re.search(r"It stays: (\S+)\n`sublet exec -it (\S+) sh`", said)
    assert found, said
    eventually(lambda: rows(suite.sublet) == [found[2]], "the others are gone")
    counted = subprocess.run(
        ["psql", found[1], "-XAtc", "SELECT count(*) FROM t"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert counted.stdout == "0\n"
    suite.sublet.ok("rm", "-f", found[2])


def test_what_cannot_be_prepared_is_tried_once(suite: Suite) -> None:
    tests = """
from sublet.pytest_plugin import sublet_service
def broken(db):
    with open("tried", "a") as told:
        told.write("x")
    sql(db, "not SQL")
bad = sublet_service("postgres:15", prepare=broken)
def test_1(bad): pass
def test_2(bad): pass
def test_3(): pass
"""
    code, said = suite.run(tests)
    assert (code, "1 passed, 2 errors" in said) == (1, True), said
    assert 'syntax error at or near "not"' in said
    assert "postgres:15 was not to be prepared" in said
    assert (suite.place / "tried").read_text() == "x"
    eventually(lambda: rows(suite.sublet) == [], "all gone")


def test_nothing_is_left_of_a_killed_run(suite: Suite) -> None:
    tests = "import time\ndef test_long(db):\n    open('in', 'w').close()\n    time.sleep(600)\n"
    process = suite.spawn(tests)
    eventually((suite.place / "in").exists, "the test runs", 120)
    assert len(rows(suite.sublet)) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    eventually(lambda: rows(suite.sublet) == [], "all gone")


@pytest.mark.slow
def test_nothing_is_left_of_killed_workers(suite: Suite) -> None:
    """The one that prepared is killed, and the other forks what it prepares itself; then the
    controller is."""
    tests = """
import os, pathlib, signal, time

def test_a(db):
    prepared = pathlib.Path(os.environ["PREPARED"]).read_text().split()
    if prepared == [str(os.getpid())]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)

test_b = test_c = test_d = test_e = test_a
"""
    code, said = suite.run(tests, "-n", "2")
    assert (code, "crashed" in said, "4 passed" in said) == (1, True, True), said
    assert suite.times_prepared() == 2
    eventually(lambda: rows(suite.sublet) == [], "all gone")
    tests = """
import time
def test_a(db):
    open('in', 'w').close()
    time.sleep(5)
test_b = test_a
"""
    process = suite.spawn(tests, "-n", "2")
    eventually((suite.place / "in").exists, "a test runs", 120)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    eventually(lambda: rows(suite.sublet) == [], "all gone", 60)
    process.communicate(timeout=30)


def test_without_a_daemon(suite: Suite) -> None:
    (suite.place / "pytest.ini").write_text(f"[pytest]\nsublet_socket = {suite.place}/none.sock\n")
    code, said = suite.run("def test_it(db): pass\n")
    assert (code, f"No daemon answers at {suite.place}/none.sock" in said) == (1, True), said


def test_who_does_not_use_it_pays_nothing(suite: Suite) -> None:
    tests = """
import sys
def test_it():
    loaded = {name for name in sys.modules if name.startswith("sublet.")}
    assert loaded == {
        "sublet.pytest_plugin",
        "sublet.pytest_plugin.fixtures",
        "sublet.pytest_plugin.hooks",
        "sublet.pytest_plugin.service",
    }
"""
    (suite.place / "conftest.py").write_text("sql = None\n")
    assert suite.run(tests)[0] == 0
    code, said = suite.run("def test_it(sublet_service): pass\n", "-p", "no:sublet")
    assert (code, "fixture 'sublet_service' not found" in said) == (1, True)


def test_the_example(suite: Suite) -> None:
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (suite.place / file.name).write_bytes(file.read_bytes())
    (suite.place / "pytest.ini").unlink()
    process = suite.spawn("", "test_shop.py")
    said, _ = process.communicate(timeout=240)
    assert (process.returncode, "6 passed" in said) == (0, True), said
    eventually(lambda: rows(suite.sublet) == [], "all gone")
