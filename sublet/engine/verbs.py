"""All verbs of one daemon, for whatever dialect of API comes in."""

from __future__ import annotations

from dataclasses import dataclass

from sublet.domain.config import Config
from sublet.engine.backups import Backups
from sublet.engine.bills import Bills
from sublet.engine.budgets import Budgets
from sublet.engine.commits import Commits
from sublet.engine.events import Events
from sublet.engine.file_watches import FileWatches
from sublet.engine.files import Files
from sublet.engine.forks import Forks
from sublet.engine.health import HealthChecks
from sublet.engine.idleness import Idleness
from sublet.engine.images import Images
from sublet.engine.instances import Instances
from sublet.engine.leases import Leases
from sublet.engine.market import SpotMarket
from sublet.engine.meter import Meter
from sublet.engine.networks import Networks
from sublet.engine.operations import Operations
from sublet.engine.paths import Paths
from sublet.engine.pools import Pools
from sublet.engine.reconcile import Reconciler
from sublet.engine.rehearsal import Rehearsals
from sublet.engine.restoring import Restores
from sublet.engine.rollbacks import Rollbacks
from sublet.engine.schedules import Schedules
from sublet.engine.snapshots import Snapshots
from sublet.engine.volumes import Volumes
from sublet.engine.waking import Waking


@dataclass(frozen=True, slots=True)
class Verbs:
    """One object per noun."""

    config: Config
    instances: Instances
    leases: Leases
    market: SpotMarket
    rehearsals: Rehearsals
    health: HealthChecks
    idleness: Idleness
    waking: Waking
    images: Images
    volumes: Volumes
    snapshots: Snapshots
    forks: Forks
    rollbacks: Rollbacks
    schedules: Schedules
    pools: Pools
    backups: Backups
    restores: Restores
    networks: Networks
    files: Files
    paths: Paths
    file_watches: FileWatches
    commits: Commits
    meter: Meter
    bills: Bills
    budgets: Budgets
    operations: Operations
    events: Events
    reconciler: Reconciler
