"""Repositories of backups, kept by restic(1)."""

from sublet.drivers.restic.account import Account
from sublet.drivers.restic.answers import Done, Kept
from sublet.drivers.restic.repository import GRACE, Repository

__all__ = ["GRACE", "Account", "Done", "Kept", "Repository"]
