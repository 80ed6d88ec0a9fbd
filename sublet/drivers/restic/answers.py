"""What restic(1) says: progress, snapshots, and why it failed, as one of our errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sublet.domain.errors import (
    BackupFailed,
    Busy,
    NoSuchBackup,
    ProcessFailed,
    RepositoryUnavailable,
)
from sublet.drivers import run
from sublet.drivers.restic.account import Account

_CLOSED = ("unable to open", "unable to start", "create repository", "Fatal: Stat")
_PRESENT = ("config file already exists", "already initialized")
_CONFIG = "unable to open config file"
_ABSENT = ("not exist", "no such file", "NoSuchKey", "NoSuchBucket", "not found")
_REFUSED = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "Access Key Id you provided",
    "signature we calculated",
    "AccessDenied",
    "Access Denied",
    "401 Unauthorized",
    "403 Forbidden",
)
"""Words of S3 and its like for keys that do not open the door."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a run has sent so far: bytes and files, of how many."""

    bytes: int = 0
    total_bytes: int = 0
    files: int = 0
    total_files: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot in a repository: restic's id, its tags."""

    snapshot: str
    tags: Mapping[str, str]


def fail(action: str, result: run.Result, address: str, account: Account) -> NoReturn:
    """Raise what `restic ACTION` said, as one of our errors."""
    said = result.stderr
    if locked(result):
        raise Busy(
            f"{address} is locked: another backup, or a prune, goes on there.",
            hint="Try again when it has ended.",
        )
    if "wrong password" in said:
        raise RepositoryUnavailable(
            f"The password in {account.password} does not open {address}.",
            hint="Put the password of the host that made the repository into that file.",
        )
    if "no matching ID" in said:
        raise NoSuchBackup("The repository has no such snapshot any more.")
    if any(text in said for text in _REFUSED):
        raise RepositoryUnavailable(
            f"{address} refuses its keys: {_why(said)}.",
            hint=f"Put the right ones into {account.credentials}, NAME=VALUE a line, mode 600.",
        )
    if _CONFIG in said and any(text in _why(said) for text in _ABSENT):
        raise RepositoryUnavailable(f"There is no repository at {address} yet.")
    if any(text in said for text in _CLOSED):
        raise RepositoryUnavailable(f"{address} cannot be opened: {_why(said)}.")
    try:
        raise run.failure(["restic", action], result)
    except ProcessFailed:
        error = BackupFailed(f"restic {action} failed: {_why(said)}.")
        if action != "backup":
            error.hint = "`sublet backup verify --data` tells whether the repository is sound."
        raise error from None


def locked(result: run.Result) -> bool:
    """Whether somebody else has the repository."""
    return "already locked" in result.stderr


def present(result: run.Result) -> bool:
    """Whether `restic init` found a repository."""
    return any(text in result.stderr for text in _PRESENT)


def status(line: str) -> Done | None:
    """What a line of `restic backup --json` says of its progress."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("message_type") != "status":
        return None
    keys = ("bytes_done", "total_bytes", "files_done", "total_files")
    return Done(*(int(told.get(key, 0)) for key in keys))


def summary(output: bytes) -> dict[str, Any]:
    """The summary that ends the output of `restic backup --json`."""
    for line in reversed(output.splitlines()):
        if b'"summary"' in line:
            return dict(json.loads(line))
    raise BackupFailed("restic ended without a summary.")


def listed(output: bytes) -> list[Kept]:
    """What `restic snapshots --json` tells."""
    found = json.loads(output or b"[]") or []
    return [Kept(entry["id"], _tags(entry.get("tags") or ())) for entry in found]


def _tags(texts: Sequence[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)


def _why(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    ssh = [line.partition(": ")[2] for line in lines if line.startswith("subprocess ssh: ")]
    fatal = [line.partition(": ")[2] for line in lines if line.startswith("Fatal: ")]
    return (ssh[-1:] or fatal or lines[-1:] or ["it said nothing"])[0].rstrip(".")
