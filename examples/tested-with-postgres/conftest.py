"""A PostgreSQL for each test: migrated once, then forked."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sublet.pytest_plugin import Service, sublet_service

SCHEMA = Path(__file__).with_name("schema.sql")


def psql(db: Service, *words: str) -> str:
    """What the host's own client prints."""
    command = ["psql", "-XAt", "-v", "ON_ERROR_STOP=1", db.url, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def migrate(db: Service) -> None:
    psql(db, "-qf", str(SCHEMA))


db = sublet_service("postgres:15", prepare=migrate)
