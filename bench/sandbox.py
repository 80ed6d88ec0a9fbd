"""Sandboxes: cold, from a template, from a warm pool; a hundred at once; a database for each test.

Sandboxes that no pool may serve are asked for in a size that no pool has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

from bench.engines import IMAGE, Engine
from bench.lab import Lab
from bench.measure import Aim, Findings, Row, Sampled, Timing, ratio, rows, sample
from sublet.sdk import Client, Sandbox

MIB = 1 << 20
POOLED, COLD = "1x0.25", "1x0.28125"
AT_ONCE, SMALL = 100, "1x0.125"
DATABASE, COPY = "postgres:15", "bench-postgres:latest"
SERVER = ("postgres", "-c", "fsync=off")
"""As databases of tests are run, by all alike: one that may lose its rows at a power cut. A fork
of one that syncs would sync every file before it answers."""
ROWS = 100_000
"""Rows of about a kilobyte each that the migration writes."""
MIGRATION = (
    "create table t as select i, repeat(md5(i::text), 32) as x "
    f"from generate_series(1, {ROWS}) i; alter table t add primary key (i)"
)
DEADLINE = 120.0


def run(lab: Lab) -> Findings:
    """Each part by itself; nothing is left at the end."""
    client = lab.client
    found = [_first_outputs(lab), _hand_outs(lab), _at_once(lab), _databases(lab)]
    left = len(client.ps(all=True)) + len(client.pools()) + len(client.audit())
    aims = [aim for each in found for aim in each.aims]
    aims.append(Aim("sandboxes: left behind", left, "things", 0, most=True))
    return Findings([row for each in found for row in each.rows], aims)


@contextmanager
def _pool(client: Client, count: int, **options: Any) -> Iterator[Callable[[], None]]:
    """A pool that is full; what it yields waits until it is full again."""
    name = client.set_pool(IMAGE, count, **options)["name"]

    def full() -> None:
        until = time.monotonic() + DEADLINE
        while not any(row["name"] == name and row["ready"] >= count for row in client.pools()):
            if time.monotonic() > until:
                raise RuntimeError(f"not full within {DEADLINE:g} s: {client.pools()}")
            time.sleep(0.05)

    try:
        full()
        yield full
    finally:
        client.remove_pool(name)


def _first_output(isolation: str, size: str, ready: Callable[[], None] | None = None) -> float:
    """Milliseconds from asking for a sandbox to the first output of a command in it."""
    if ready:
        ready()
    begin = time.perf_counter()
    with Sandbox.create(IMAGE, isolation=isolation, size=size) as box:
        if box.exec(["echo", "hello"]).stdout != "hello\n":
            raise RuntimeError("no output")
        return (time.perf_counter() - begin) * 1000


def _first_outputs(lab: Lab) -> Findings:
    cold, warm = "container", "container, from a pool"
    template, warm_vm = "VM, from a template", "VM, from a pool"
    peers: dict[str, Sampled] = {cold: partial(_first_output, "container", COLD)}
    with _pool(lab.client, 2, instance_size=POOLED) as ready:
        peers[warm] = partial(_first_output, "container", POOLED, ready)
        if not lab.has("qemu"):
            return _told(sample(peers, lab.rounds), cold, warm)
        with _pool(lab.client, 2, vm=True, instance_size=POOLED) as ready_vm:
            peers[template] = partial(_first_output, "vm", COLD)
            peers[warm_vm] = partial(_first_output, "vm", POOLED, ready_vm)
            return _told(sample(peers, lab.rounds), cold, warm)


def _told(timings: Any, cold: str, warm: str) -> Findings:
    named = {f"first output, {name}": timing for name, timing in timings.items()}
    aims = ratio("sandbox from a pool: part of a cold one", timings, warm, cold, 1 / 2, most=True)
    return Findings(rows("sandbox", named), aims)


def _hand_outs(lab: Lab) -> Findings:
    """What `Sandbox.create` takes, beside a round trip that does nothing."""
    client = lab.client

    def hand_out(isolation: str, ready: Callable[[], None]) -> float:
        ready()
        time.sleep(0.2)  # what made the last one is over
        begin = time.perf_counter()
        box = Sandbox.create(IMAGE, isolation=isolation, size=POOLED)
        took = (time.perf_counter() - begin) * 1000
        box.close()
        return took

    def floor() -> float:
        begin = time.perf_counter()
        client.version()
        return (time.perf_counter() - begin) * 1000

    timings: dict[str, Timing] = {}
    for isolation in ("container", "vm") if lab.has("qemu") else ("container",):
        with _pool(client, 2, vm=isolation == "vm", instance_size=POOLED) as ready:
            peers: dict[str, Sampled] = {"GET /v1/version": floor}
            peers[f"handed out, {isolation}"] = partial(hand_out, isolation, ready)
            timings = sample(peers, lab.rounds) | timings
    took = timings["handed out, container"].median
    return Findings(rows("sandbox", timings), [Aim("sandbox handed out", took, "ms", 5, most=True)])


def _at_once(lab: Lab) -> Findings:
    """A hundred, asked for by as many threads, until each has answered a command."""
    client, found = lab.client, []
    found += _crowd(client, "cold", "container")
    with _pool(client, AT_ONCE, instance_size=SMALL):
        found += _crowd(client, "from a pool", "container")
    if lab.has("qemu"):
        found += _crowd(client, "from a template", "vm")
    return Findings(found, [])


def _crowd(client: Client, how: str, isolation: str) -> list[Row]:
    def one(_: int) -> tuple[Sandbox, float]:
        begin = time.perf_counter()
        box = Sandbox.create(IMAGE, isolation=isolation, size=SMALL, timeout=DEADLINE)
        if box.exec(["echo", "hello"]).exit_code != 0:
            raise RuntimeError("no output")
        return box, (time.perf_counter() - begin) * 1000

    begin = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        made = list(threads.map(one, range(AT_ONCE)))
    took = time.perf_counter() - begin
    boxes = [box for box, _ in made]
    memory = [client.footprint(box.id)["memory"] / MIB for box in boxes[:10]]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda box: box.close(), boxes))
    what = f"{AT_ONCE} at once, {'VM' if isolation == 'vm' else isolation}, {how}"
    note = f"median {median(each for _, each in made):,.0f} ms, {median(memory):.1f} MB each"
    return [Row("sandbox", what, took, "s", note)]


def _databases(lab: Lab) -> Findings:
    """A migrated PostgreSQL for a test: a fork of one, a fresh one, and Docker's."""
    client = lab.client
    client.ensure(DATABASE)
    with client.run(DATABASE, SERVER, memory="512m") as origin:
        _answers(client, origin.id)
        _query(client, origin.id, MIGRATION)
        _query(client, origin.id, "checkpoint")
        peers: dict[str, Sampled] = {
            "migrated PostgreSQL, fork": lambda: _timed(partial(_forked, client, origin.id)),
            "migrated PostgreSQL, fresh": lambda: _timed(partial(_fresh, client)),
        }
        if lab.has("docker"):
            _give_docker(lab)
            peers["migrated PostgreSQL, docker run"] = lambda: _timed(partial(_docker, lab.docker))
        timings = sample(peers, max(1, lab.rounds // 3), warm_up=1)
        memory = client.footprint(origin.id)["memory"] / MIB
        fork = client.fork_of(origin.id)
        try:
            _answers(client, fork["id"])
            forked = client.footprint(fork["id"])["memory"] / MIB
        finally:
            client.remove(fork["id"], force=True, volumes=True)
    found = rows("sandbox", timings)
    found.append(Row("sandbox", "memory, PostgreSQL", memory, "MB", f"its fork {forked:.1f} MB"))
    return Findings(found, [])


def _timed(work: Callable[[], Callable[[], object]]) -> float:
    """Milliseconds of `work`, but not of the clean-up that it returns."""
    begin = time.perf_counter()
    clean = work()
    took = (time.perf_counter() - begin) * 1000
    clean()
    return took


def _query(client: Client, instance: str, text: str) -> str:
    command = ["psql", "-U", "postgres", "-h", "127.0.0.1", "-Atqc", text]
    done = client.exec(instance, command, env={"PGPASSWORD": "postgres"})
    if done.exit_code != 0:
        raise RuntimeError(f"{text}: {done}")
    return done.stdout


def _answers(client: Client, instance: str) -> None:
    _until(lambda: _query(client, instance, "select 1"))


def _until(work: Callable[[], object]) -> None:
    until = time.monotonic() + DEADLINE
    while True:
        try:
            work()
            return
        except RuntimeError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _forked(client: Client, origin: str) -> Callable[[], object]:
    fork = client.fork_of(origin)["id"]
    _until(lambda: _query(client, fork, "select count(*) from t where i = 1"))
    return lambda: client.remove(fork, force=True, volumes=True)


def _fresh(client: Client) -> Callable[[], object]:
    made = client.run(DATABASE, SERVER, memory="512m")
    _answers(client, made.id)
    _query(client, made.id, MIGRATION)
    return lambda: made.remove(force=True)


def _give_docker(lab: Lab) -> None:
    """The same files, with what the image says of its process."""
    tar = lab.work / "postgres.tar"
    instance = lab.client.create(DATABASE)
    lab.sublet("export", instance.id, "-o", str(tar), timeout=600)
    instance.remove(force=True)
    config = lab.client.inspect_image(DATABASE)["config"]
    changes = [f"ENV {text}" for text in config["Env"]]
    changes += ['ENTRYPOINT ["entrypoint"]', 'CMD ["postgres"]']
    flags = [word for change in changes for word in ("--change", change)]
    lab.docker("import", *flags, str(tar), COPY, timeout=600)
    os.unlink(tar)


def _docker(engine: Engine) -> Callable[[], object]:
    made = engine(*engine.run, "-d", "-m", "512m", COPY, *SERVER).strip()

    def query(text: str) -> str:
        psql = ("psql", "-U", "postgres", "-h", "127.0.0.1", "-Atqc", text)
        return engine("exec", "-e", "PGPASSWORD=postgres", made, *psql)

    _until(lambda: query("select 1"))
    query(MIGRATION)
    return lambda: engine("rm", "-f", made)
