"""The SQLite database: one file, one writer, ordered migrations.

WAL with `synchronous=NORMAL`: a killed daemon loses no committed transaction; a
power cut may lose the last ones, never the file's soundness (sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sublet.domain.errors import HostUnsupported

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE images (
        digest TEXT PRIMARY KEY,      -- sha256 of the whole file
        size INTEGER NOT NULL,
        created REAL NOT NULL,
        offset INTEGER NOT NULL,      -- of the squashfs in the file
        length INTEGER NOT NULL,
        config BLOB NOT NULL          -- OCI image config, JSON
    );
    CREATE TABLE names (
        name TEXT PRIMARY KEY,
        digest TEXT NOT NULL REFERENCES images(digest) ON DELETE CASCADE
    );
    -- What this host packed itself, by the SHA-256 of the file: may be mounted.
    CREATE TABLE packed (digest TEXT PRIMARY KEY);
    -- What an outside thing was packed into: a foreign file's or a built image's id.
    CREATE TABLE sources (source TEXT PRIMARY KEY, digest TEXT NOT NULL);
    -- SHA-256 of files that were read whole, while inode, size and mtime stay the same.
    CREATE TABLE hashes (
        device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER, digest TEXT NOT NULL,
        PRIMARY KEY (device, inode)
    );
    CREATE TABLE instances (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image TEXT NOT NULL,
        digest TEXT NOT NULL,
        spec BLOB NOT NULL,           -- JSON
        slot INTEGER NOT NULL UNIQUE,
        state TEXT NOT NULL,
        created REAL NOT NULL,
        started REAL NOT NULL,
        finished REAL NOT NULL,
        exit_code INTEGER,
        pid INTEGER NOT NULL,
        pid_start INTEGER NOT NULL,
        supervisor INTEGER NOT NULL,
        supervisor_start INTEGER NOT NULL,
        reason TEXT NOT NULL
    );
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        type TEXT NOT NULL,
        instance TEXT NOT NULL,
        detail TEXT NOT NULL          -- JSON
    );
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
    """
    ALTER TABLE instances ADD COLUMN kept INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE instances ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE instances ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE instances ADD COLUMN health TEXT NOT NULL DEFAULT 'none';
    """,
    """
    CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,      -- names its directory
        created REAL NOT NULL,
        size INTEGER NOT NULL,        -- the most bytes, 0: no limit
        labels TEXT NOT NULL          -- JSON
    );
    CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        instance TEXT NOT NULL,       -- id; snapshots go with their instance
        created REAL NOT NULL,
        complete INTEGER NOT NULL,    -- 0 while it is being made
        volumes TEXT NOT NULL         -- JSON: the names of those that it holds copies of
    );
    """,
    """
    CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        number INTEGER NOT NULL UNIQUE, -- names its bridge, and its subnet unless one was asked for
        subnet TEXT NOT NULL,
        gateway TEXT NOT NULL,
        internal INTEGER NOT NULL,
        labels TEXT NOT NULL,           -- JSON
        created REAL NOT NULL
    );
    INSERT INTO networks VALUES ('000000000000', 'default', 0, '', '', 0, '{}', 0);
    CREATE TABLE connections (
        network TEXT NOT NULL REFERENCES networks(id),
        instance TEXT NOT NULL REFERENCES instances(id) ON DELETE CASCADE,
        interface INTEGER NOT NULL,
        offset INTEGER NOT NULL,        -- of the address in the network's subnet
        aliases TEXT NOT NULL,          -- JSON
        PRIMARY KEY (instance, network),
        UNIQUE (instance, interface),
        UNIQUE (network, offset)
    );
    """,
    """
    ALTER TABLE volumes ADD COLUMN raw INTEGER NOT NULL DEFAULT 0;    -- a guest writes it
    ALTER TABLE snapshots ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
    """,
    """
    -- The size of a running VM from its next start on; 0: as it is.
    ALTER TABLE instances ADD COLUMN next_cpus REAL NOT NULL DEFAULT 0;
    ALTER TABLE instances ADD COLUMN next_memory INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE instances ADD COLUMN next_disk INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE schedules (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        "when" TEXT NOT NULL,
        timezone TEXT NOT NULL,
        spec BLOB NOT NULL,           -- JSON of what is run, or null
        start TEXT NOT NULL,          -- the id of the instance that is started
        "limit" REAL NOT NULL,
        missed TEXT NOT NULL,
        overlap TEXT NOT NULL,
        jitter REAL NOT NULL,
        keep INTEGER NOT NULL,
        enabled INTEGER NOT NULL,
        created REAL NOT NULL,
        handled REAL NOT NULL
    );
    CREATE TABLE schedule_runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        schedule TEXT NOT NULL REFERENCES schedules(id) ON DELETE CASCADE,
        due REAL NOT NULL,
        outcome TEXT NOT NULL,
        began REAL NOT NULL,
        ended REAL NOT NULL,
        instance TEXT NOT NULL,
        name TEXT NOT NULL,
        exit_code INTEGER,
        cost REAL NOT NULL,
        reason TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE keepalives (
        instance TEXT PRIMARY KEY REFERENCES instances(id) ON DELETE CASCADE,
        until REAL NOT NULL             -- seconds since the epoch
    );
    """,
    """
    -- What is charged, a row for each segment; they outlive their instances.
    CREATE TABLE charges (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL,         -- the id of its start's first segment
        instance TEXT NOT NULL,       -- id; name, image and labels are as they were
        name TEXT NOT NULL,
        image TEXT NOT NULL,
        market TEXT NOT NULL,
        cpus REAL NOT NULL,
        memory INTEGER NOT NULL,
        price REAL NOT NULL,          -- dollars per hour
        on_demand REAL NOT NULL,
        wall REAL NOT NULL,           -- what the clocks showed when it began
        monotonic REAL NOT NULL,
        boot TEXT NOT NULL,
        seconds REAL,                 -- NULL while it goes on
        reclaimed INTEGER NOT NULL,
        labels TEXT NOT NULL          -- JSON
    );
    CREATE INDEX charges_instance ON charges(instance);
    CREATE INDEX charges_open ON charges(instance) WHERE seconds IS NULL;
    """,
    """
    CREATE TABLE spot_requests (
        id TEXT PRIMARY KEY,
        instance TEXT NOT NULL,       -- id; a request outlives its instance
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        status TEXT NOT NULL,
        max_price REAL NOT NULL,      -- dollars per hour
        created REAL NOT NULL,
        updated REAL NOT NULL,
        wanted INTEGER NOT NULL       -- the market fills it when it can
    );
    CREATE TABLE notices (
        instance TEXT PRIMARY KEY,
        action TEXT NOT NULL,
        reason TEXT NOT NULL,
        given REAL NOT NULL,
        deadline REAL NOT NULL,
        begun INTEGER NOT NULL        -- the action is being taken
    );
    CREATE TABLE quotes (
        time REAL NOT NULL,
        factor REAL NOT NULL,         -- on the on-demand price
        used REAL NOT NULL            -- the share of the capacity that on-demand used
    );
    CREATE INDEX quotes_time ON quotes (time);
    """,
    """
    -- Of labels; an instance's own is in its spec.
    CREATE TABLE budgets (
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        amount REAL NOT NULL,         -- dollars
        period TEXT NOT NULL,
        PRIMARY KEY (key, value)
    );
    -- What was told of a budget in the period that ends at `renews`.
    CREATE TABLE budget_levels (
        subject TEXT PRIMARY KEY,
        amount REAL NOT NULL,
        renews REAL NOT NULL,
        level INTEGER NOT NULL
    );
    """,
    """
    -- What this host has backed up; they stay when their instances go.
    CREATE TABLE backups (
        id TEXT PRIMARY KEY,
        repository TEXT NOT NULL,
        instance TEXT NOT NULL,         -- id
        name TEXT NOT NULL,
        time REAL NOT NULL,             -- of the files
        size INTEGER NOT NULL,
        snapshot TEXT NOT NULL,         -- restic's id
        complete INTEGER NOT NULL,
        staged INTEGER NOT NULL,        -- the copy that it is made of is on this host
        missing TEXT NOT NULL,
        reason TEXT NOT NULL,
        manifest TEXT NOT NULL          -- its SHA-256
    );
    """,
    """
    -- Of a segment's seconds, those at earlier prices, and the dollars that they cost.
    ALTER TABLE charges ADD COLUMN priced REAL NOT NULL DEFAULT 0;
    ALTER TABLE charges ADD COLUMN spent REAL NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE pools (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,          -- instances that are to be ready
        spec BLOB NOT NULL,             -- JSON of each
        created REAL NOT NULL
    );
    -- The pool that an instance waits in; empty once it is somebody's.
    ALTER TABLE instances ADD COLUMN pool TEXT NOT NULL DEFAULT '';
    """,
)
"""Append-only: each entry takes the database one version further (PRAGMA user_version)."""


HEADROOM = 8 << 20
"""Bytes that are set aside for the log of changes: twice what it grows to before it is
emptied (1000 pages)."""


def _set_aside(log: Path) -> None:
    """Give the log its room, so that instances can be stopped and removed on a full disk.

    SQLite ignores what follows the last valid frame (sqlite.org/fileformat2.html, 4.3).
    """
    with log.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, HEADROOM)


class Database:
    """A connection with the current schema. Used from one thread, the event loop's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch(mode=0o600)  # what tenants put into their environment is in here
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        self._migrate()
        with contextlib.suppress(OSError):  # a full disk, now: nothing can be set aside
            _set_aside(path.with_name(f"{path.name}-wal"))

    def _migrate(self) -> None:
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise HostUnsupported(
                f"The database is of version {version}; this Sublet knows {len(MIGRATIONS)}.",
                hint="Start the newer Sublet that wrote it.",
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self.connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;"
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block's changes, or none. Blocks do not nest; no awaiting inside."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            if self.connection.in_transaction:  # a full disk ends it, or does not
                self.connection.execute("ROLLBACK")
            raise
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self.connection.close()
