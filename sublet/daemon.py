"""The daemon: builds drivers → engine → API, serves the socket, and ends in order."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import grp
import logging
import os
import signal
import socket
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from sublet.api import metadata, native
from sublet.domain import config as settings
from sublet.domain.capacity import rentable
from sublet.domain.config import Config
from sublet.domain.errors import DaemonUnavailable, InvalidArgument, SubletError
from sublet.domain.instance import LIVE
from sublet.domain.waking import sleeps
from sublet.drivers import linux, trace
from sublet.drivers.cgroup import Cgroups
from sublet.drivers.container.containers import Containers
from sublet.drivers.layers import Layers
from sublet.drivers.network import Network
from sublet.drivers.store.backups import BackupStore
from sublet.drivers.store.budgets import BudgetStore
from sublet.drivers.store.charges import ChargeStore
from sublet.drivers.store.database import Database
from sublet.drivers.store.images import ImageStore
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.keepalives import KeepaliveStore
from sublet.drivers.store.market import MarketStore
from sublet.drivers.store.networks import NetworkStore
from sublet.drivers.store.pools import PoolStore
from sublet.drivers.store.schedules import ScheduleStore
from sublet.drivers.store.snapshots import SnapshotStore
from sublet.drivers.store.volumes import VolumeStore
from sublet.drivers.vm.machines import Machines
from sublet.drivers.volumes import VolumeFiles
from sublet.engine import host
from sublet.engine.backup_plans import BackupPlans
from sublet.engine.backups import Backups
from sublet.engine.bills import Bills
from sublet.engine.budgets import Budgets
from sublet.engine.commits import Commits
from sublet.engine.events import Events
from sublet.engine.expiry import Expiry
from sublet.engine.file_watches import FileWatches
from sublet.engine.files import Files
from sublet.engine.forks import Forks
from sublet.engine.health import HealthChecks
from sublet.engine.idleness import Idleness
from sublet.engine.images import Images
from sublet.engine.instances import Instances
from sublet.engine.leases import Leases
from sublet.engine.lifecycle import Lifecycle
from sublet.engine.market import SpotMarket
from sublet.engine.metadata import Metadata
from sublet.engine.meter import Meter
from sublet.engine.networks import Networks
from sublet.engine.operations import Operations
from sublet.engine.parts import Parts
from sublet.engine.paths import Paths
from sublet.engine.pools import Pools
from sublet.engine.pressure import Pressure
from sublet.engine.reconcile import Reconciler
from sublet.engine.rehearsal import Rehearsals
from sublet.engine.restarts import Restarts
from sublet.engine.restoring import Restores
from sublet.engine.returns import Returns
from sublet.engine.rollbacks import Rollbacks
from sublet.engine.runs import Runs
from sublet.engine.schedules import Schedules
from sublet.engine.snapshots import Snapshots
from sublet.engine.tasks import Tasks
from sublet.engine.verbs import Verbs
from sublet.engine.waking import Waking

log = logging.getLogger("sublet")

SUBNET, REGION = "subnet", "region"
"""The settings that remember which subnet and region of user ids were chosen."""


WORKERS = 32
"""Threads for calls that block, made as they are needed: while memory of VMs is saved, the ends
of other instances do not wait."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the daemon has its own, which call `end`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Have `serve` return."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """uvicorn's wakes ten times a second to see whether it shall end, which is most of what
        an idle daemon costs. This one is told, and wakes for the date in the answers."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def load_config() -> Config:
    """The settings from the environment and `SUBLET_ROOT/config.toml`."""
    root = Path(os.environ.get("SUBLET_ROOT") or settings.DEFAULT_ROOT)
    try:
        with open(root / "config.toml", "rb") as file:
            data = tomllib.load(file)
    except FileNotFoundError:
        data = {}
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{root}/config.toml cannot be read: {error}.") from error
    return settings.load(data, os.environ)


def assemble(config: Config) -> tuple[Verbs, Parts]:
    """Drivers, then the engine on top of them."""
    database = Database(config.root / "sublet.db")
    parts = drivers(config, database)
    images = Images(config, parts.image_store, gone=lambda file: forget(parts, file.stem))
    lifecycle = Lifecycle(parts)
    market = SpotMarket(lifecycle, MarketStore(database))
    instances = Instances(lifecycle, images, market)
    meter = metered(lifecycle, market, ChargeStore(database))
    health, restarts = HealthChecks(lifecycle, instances.execute), Restarts(lifecycle, market.admit)
    idleness = Idleness(instances, KeepaliveStore(database))
    wakes, snapshots = Waking(instances), Snapshots(instances)
    rollbacks, backups = Rollbacks(snapshots), Backups(instances, BackupStore(database))
    plans = BackupPlans(backups)
    lifecycle.observers += [health, restarts, idleness, wakes, plans]
    lifecycle.updated += [idleness.updated, wakes.updated, plans.updated]
    market.observers.append(plans)
    schedule_store = ScheduleStore(database)
    runs = Runs(instances, schedule_store, meter.cost_of_starts)
    verbs = Verbs(
        config=config,
        instances=instances,
        leases=Leases(instances),
        market=market,
        rehearsals=Rehearsals(market, instances),
        networks=Networks(instances),
        health=health,
        idleness=idleness,
        waking=wakes,
        images=images,
        files=Files(instances),
        paths=Paths(instances),
        file_watches=FileWatches(instances),
        commits=Commits(instances),
        volumes=lifecycle.volumes,
        snapshots=snapshots,
        forks=Forks(snapshots),
        rollbacks=rollbacks,
        schedules=Schedules(instances, schedule_store, runs),
        pools=Pools(instances, PoolStore(database)),
        meter=meter,
        bills=Bills(config, meter, market.factor),
        budgets=Budgets(instances, meter, BudgetStore(database)),
        operations=Operations(parts.tasks),
        events=parts.events,
        reconciler=Reconciler(lifecycle, images, restarts, rollbacks, backups, meter),
        backups=backups,
        restores=Restores(backups, images),
    )
    return verbs, parts


def drivers(config: Config, database: Database) -> Parts:
    """What acts on the host, and what is kept."""
    store, network_store = InstanceStore(database), NetworkStore(database)
    tasks, region = Tasks(), store.setting(REGION)
    cgroups = Cgroups(config.identity)
    containers = Containers(config, cgroups)
    return Parts(
        config=config,
        rentable=rentable(os.cpu_count() or 1, host.memory(), config.overcommit, config.reserve),
        store=store,
        network_store=network_store,
        image_store=ImageStore(database),
        containers=containers,
        machines=Machines(config, cgroups, containers.pool, tasks.start),
        layers=Layers(containers.mounts / "images", config.root / "unpacked"),
        volumes=VolumeFiles(containers.pool, containers.mounts),
        volume_store=VolumeStore(database),
        snapshot_store=SnapshotStore(database),
        network=Network(
            config, store.setting(SUBNET), int(region) if region else None, network_store.all()
        ),
        events=Events(store),
        tasks=tasks,
    )


def metered(lifecycle: Lifecycle, market: SpotMarket, charges: ChargeStore) -> Meter:
    """The meter: it is told of prices and of what is taken back, and tells when lost ones ended."""
    parts = lifecycle.parts
    meter = Meter(parts.store, charges, market.price, parts.config.on_demand)
    market.pricing.observers.append(meter.repriced)
    market.notices.taking.append(meter.reclaimed)
    lifecycle.lost = meter.seen
    return meter


def forget(parts: Parts, image: str) -> None:
    """Drop what was made of an image that is gone."""
    parts.layers.drop(image)
    parts.tasks.start("templates", parts.machines.templates.remove_image(f"sha256:{image}"))


def lock(config: Config) -> int:
    """Make sure that this is the only daemon of its SUBLET_RUN and SUBLET_ROOT."""
    config.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    config.root.mkdir(mode=0o711, parents=True, exist_ok=True)
    for directory in (config.run, config.root):
        fd = os.open(directory / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DaemonUnavailable(
                f"Another daemon already serves {directory}.",
                hint="Set SUBLET_ROOT and SUBLET_RUN to run a second one beside it.",
            ) from None
    return fd


def listen(config: Config) -> socket.socket:
    """The API's socket, for root and the group `sublet` where there is one."""
    path = config.socket
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError):
        os.chown(path, 0, grp.getgrnam("sublet").gr_gid)
        path.chmod(0o660)
    return listener


async def begin(verbs: Verbs, parts: Parts) -> None:
    """Bring the host into the state that the database tells of, and keep an eye on it."""
    await parts.containers.setup()
    await parts.network.up()
    parts.store.set_setting(SUBNET, parts.network.subnet)
    parts.store.set_setting(REGION, str(parts.network.region))
    await verbs.reconciler.recover()
    verbs.market.recover()
    parts.tasks.keep("pressure", Pressure(verbs.market).watch)
    parts.tasks.keep("returns", Returns(verbs.market, verbs.instances).watch)
    verbs.waking.open()
    parts.tasks.start("leases", verbs.leases.recover())
    parts.tasks.keep("expiry", Expiry(verbs.instances).watch)
    parts.tasks.keep("schedules", verbs.schedules.watch)
    parts.tasks.keep("pools", verbs.pools.watch)
    parts.tasks.keep("meter", verbs.meter.watch)
    parts.tasks.keep("budgets", verbs.budgets.watch)
    parts.tasks.keep("network guard", verbs.reconciler.guard)
    parts.tasks.keep("pool guard", parts.containers.pool.guard)
    parts.tasks.keep("machine guard", parts.machines.guard)
    told = Metadata(verbs.instances.lifecycle.connections, verbs.market.notice)
    told.noticed = verbs.market.notices.read
    await parts.network.listen(metadata.Server(told, parts.tasks).take)


async def serve(config: Config) -> None:
    """Recover, serve until SIGTERM or SIGINT, and leave the instances running."""
    if sys.version_info < (3, 12):  # later versions do so by themselves, instead of threads
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="work")
    asyncio.get_running_loop().set_default_executor(workers)
    trace.start(config.run)
    verbs, parts = assemble(config)
    await begin(verbs, parts)
    server = Server(
        uvicorn.Config(
            native.build(verbs),
            http="h11",
            ws="wsproto",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            ws_ping_interval=None,  # the socket tells when a client has gone; one may just stall
            timeout_graceful_shutdown=5,
        )
    )

    def end() -> None:
        verbs.leases.suspend()
        server.end()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    with listen(config) as listener:
        log.info("serving %s", config.socket)
        await server.serve(sockets=[listener])
    await parts.network.unlisten()
    await parts.tasks.close()
    parts.machines.close()
    parts.network.knocks.close()
    if not any(row.state in LIVE or sleeps(row) for row in parts.store.all()):
        await parts.network.down()
        parts.containers.close()
    config.socket.unlink(missing_ok=True)  # last: who waits for it finds everything gone


def main() -> None:
    """Entry point of `sublet daemon` and `python -m sublet.daemon`."""
    parser = argparse.ArgumentParser(prog="sublet daemon", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="log every program that is called")
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("asyncio").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        if os.geteuid() != 0:
            raise DaemonUnavailable("The daemon needs root.", hint="Start it with sudo.")
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # a caller's lock or pipe is not ours to keep
        linux.one_heap()
        config = load_config()
        lock(config)
        asyncio.run(serve(config))
    except SubletError as error:
        print(f"sublet: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
