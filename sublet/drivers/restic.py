"""Repositories of backups, kept by restic(1): deduplicated, encrypted, near or far.

Its password and credentials are in files and in the environment alone, never on a command line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sublet.domain.errors import (
    BackupFailed,
    Busy,
    InvalidArgument,
    NoSuchBackup,
    ProcessFailed,
    RepositoryUnavailable,
)
from sublet.domain.repositories import is_local, sftp_host
from sublet.drivers import files, run
from sublet.drivers.confine import caged

log = logging.getLogger(__name__)

GRACE = 8.0
"""Seconds in which an interrupted restic removes its lock and ends."""

LOCK_PATIENCE, LOCK_PAUSE = 120.0, 1.0
"""Seconds to wait for somebody else's lock, and between two looks."""

_FOREVER = 30 * 86400.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CLOSED = ("unable to open", "unable to start", "create repository", "Fatal: Stat")
_PRESENT = ("config file already exists", "already initialized")
_ABSENT = ("unable to open config file", "Is there a repository at the following location")


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


@dataclass(frozen=True, slots=True)
class Account:
    """How repositories are opened: the files with their password and with credentials, where
    restic may keep what it fetched, and a directory that may hold a `config` of ssh(1)."""

    password: Path
    credentials: Path
    cache: Path
    ssh: Path


class Repository:
    """One repository. Every call opens it anew, which takes restic half a second."""

    def __init__(self, address: str, account: Account) -> None:
        self.address, self._account = address, account

    # Opening

    def _env(self) -> dict[str, str]:
        return {
            **_credentials(self._account.credentials),
            "RESTIC_REPOSITORY": self.address,
            "RESTIC_PASSWORD_FILE": str(self._account.password),
            "RESTIC_CACHE_DIR": str(self._account.cache),
            "RESTIC_PROGRESS_FPS": "1",
            "TZ": "UTC",
        }

    def _argv(self, *args: str) -> list[str]:
        options = ["--no-cache"] if is_local(self.address) else []
        if host := sftp_host(self.address):
            config = self._account.ssh / "config"
            own = ["-F", str(config)] if config.exists() else []
            command = ["ssh", "-o", "BatchMode=yes", *own, *host, "-s", "sftp"]
            options += ["-o", f"sftp.command={shlex.join(command)}"]
        return ["restic", "--json", *options, *args]

    async def _run(self, *args: str, **options: Any) -> run.Result:
        """One command, again while somebody else has the repository locked. Raises."""
        if not self._account.password.exists():
            raise RepositoryUnavailable(
                f"There is no password for {self.address}: {self._account.password} is missing.",
                hint="The first backup makes one. For another host's repository put its "
                "backup.password there, mode 600.",
            )
        result = await self._patient(self._argv(*args), **options)
        if result.code:
            self._fail(args[0], result)
        return result

    async def _patient(self, argv: list[str], **options: Any) -> run.Result:
        waited = 0.0
        options = {"timeout": _FOREVER, "grace": GRACE, **options}
        while True:
            result = await run.run(argv, check=False, env=self._env(), **options)
            if not result.code or not _locked(result) or waited >= LOCK_PATIENCE:
                return result
            await run.run(self._argv("unlock"), check=False, env=self._env())  # stale ones only
            await asyncio.sleep(LOCK_PAUSE)
            waited += LOCK_PAUSE

    def _fail(self, action: str, result: run.Result) -> NoReturn:
        """Say what restic said, as one of our errors."""
        said = result.stderr
        if _locked(result):
            raise Busy(
                f"{self.address} is locked: another backup, or a prune, goes on there.",
                hint="Try again when it has ended.",
            )
        if "wrong password" in said:
            raise RepositoryUnavailable(
                f"The password in {self._account.password} does not open {self.address}.",
                hint="Put the password of the host that made the repository into that file.",
            )
        if "no matching ID" in said:
            raise NoSuchBackup("The repository has no such snapshot any more.")
        if any(text in said for text in _ABSENT):
            raise RepositoryUnavailable(f"There is no repository at {self.address} yet.")
        if any(text in said for text in _CLOSED):
            raise RepositoryUnavailable(f"{self.address} cannot be opened: {_why(said)}.")
        try:
            raise run.failure(["restic", action], result)
        except ProcessFailed:
            raise BackupFailed(f"restic {action} failed: {_why(said)}.") from None

    @property
    def made(self) -> bool:
        """Whether it is known to be there: of one that is not this host's, only asking tells."""
        return is_local(self.address) and Path(self.address, "config").exists()

    async def prepare(self) -> None:
        """Make the repository, and the password where there is none, unless they are there. Raises
        RepositoryUnavailable."""
        password = self._account.password
        if password.exists():
            if not self.made:
                await self._init()
            return
        _write_password(password)
        try:
            if not await self._init():
                raise RepositoryUnavailable(
                    f"{self.address} is there already, and its password is not on this host.",
                    hint=f"Put it into {password} (mode 600): it is in backup.password of the "
                    "SUBLET_ROOT whose daemon made the repository.",
                )
        except BaseException:
            password.unlink(missing_ok=True)  # it opens nothing
            raise

    async def _init(self) -> bool:
        """Whether it was made now; False where there is one."""
        argv = self._argv("init")
        result = await run.run(argv, check=False, env=self._env(), timeout=600, grace=GRACE)
        there = any(text in result.stderr for text in _PRESENT)
        if result.code and not there:
            self._fail("init", result)
        return result.code == 0

    # Writing

    async def backup(
        self,
        directory: Path,
        paths: Sequence[str],
        *,
        tags: Mapping[str, str],
        parent: str,
        report: Callable[[Done], None],
    ) -> str:
        """Send what is at `paths` in the directory; the snapshot's id.

        Whatever has the name, size and time of `parent`'s is not read again. Raises.
        """
        argv = ["backup", "--host", "sublet", "--ignore-inode", "--ignore-ctime"]
        for pair in sorted(tags.items()):
            argv += ["--tag", "=".join(pair)]
        argv += ["--parent", parent] if parent else ["--force"]

        def told(line: str) -> None:
            if done := _status(line):
                report(done)

        result = await self._run(*argv, "--", *paths, cwd=directory, on_line=told)
        return str(_last(result.stdout)["snapshot_id"])

    async def index(self) -> None:
        """Find what interrupted runs have sent, so that the next one need not send it again."""
        await self._run("rebuild-index")

    async def forget(self, snapshots: Sequence[str]) -> None:
        """Remove snapshots; what they took is given back by `prune`."""
        if snapshots:
            await self._run("forget", *snapshots)

    async def prune(self) -> None:
        """Give back what no snapshot needs."""
        await self._run("prune")

    # Reading

    async def snapshots(self) -> list[Kept]:
        """What Sublet keeps in the repository. Raises."""
        result = await self._run("snapshots", "--tag", "sublet=1")
        found = json.loads(result.stdout or b"[]") or []
        return [Kept(entry["id"], _tags(entry.get("tags") or ())) for entry in found]

    async def read(self, snapshot: str, path: str, most: int) -> bytes:
        """One small file of a snapshot. Raises."""
        result = await self._run("dump", snapshot, path)
        if len(result.stdout) > most:
            raise BackupFailed(f"{path} in the backup is larger than {most} bytes.")
        return result.stdout

    async def restore(self, snapshot: str, target: Path) -> None:
        """Write a snapshot into the directory, which nobody else can reach, and compare it.

        In a cage that has nothing but the two: the repository may be a stranger's.
        """
        argv = self._argv("restore", snapshot, "--target", "/target", "--verify")
        env, account = self._env(), self._account
        places = {"/target": str(target), "/password": str(account.password)}
        env["RESTIC_PASSWORD_FILE"] = "/password"
        if is_local(self.address):
            places["/repository"] = self.address
            env["RESTIC_REPOSITORY"] = "/repository"
        else:
            account.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            places["/cache"] = str(account.cache)
            env["RESTIC_CACHE_DIR"] = "/cache"
            if account.ssh.is_dir():
                places[str(account.ssh)] = str(account.ssh)
        argv = caged(argv, places, network=not is_local(self.address))
        result = await run.run(argv, check=False, env=env, timeout=_FOREVER, grace=GRACE)
        if result.code:
            self._fail("restore", result)

    async def check(self, *, data: bool) -> None:
        """Verify the repository, with `data` every byte of it. Raises BackupFailed."""
        await self._run("check", *(["--read-data"] if data else []))


def _credentials(file: Path) -> dict[str, str]:
    """The variables in the file, which is root's alone. Raises InvalidArgument."""
    try:
        status, text = file.stat(), file.read_text()
    except FileNotFoundError:
        return {}
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise InvalidArgument(
            f"{file} can be read by others.", hint=f"chmod 600 {file}; chown root {file}"
        )
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or not _VARIABLE.fullmatch(name):
            raise InvalidArgument(f"{file}: a line is no NAME=VALUE.", hint="Mend the file.")
        found[name] = value
    return found


def _write_password(file: Path) -> None:
    file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as opened:
        opened.write(f"{secrets.token_urlsafe(32)}\n")
        opened.flush()
        os.fsync(opened.fileno())
    files.sync(file.parent)


def _locked(result: run.Result) -> bool:
    return "already locked" in result.stderr


def _why(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    ssh = [line.partition(": ")[2] for line in lines if line.startswith("subprocess ssh: ")]
    fatal = [line.partition(": ")[2] for line in lines if line.startswith("Fatal: ")]
    return (ssh[-1:] or fatal or lines[-1:] or ["it said nothing"])[0].rstrip(".")


def _status(line: str) -> Done | None:
    """What a line of `restic backup --json` says of its progress."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("message_type") != "status":
        return None
    keys = ("bytes_done", "total_bytes", "files_done", "total_files")
    return Done(*(int(told.get(key, 0)) for key in keys))


def _last(output: bytes) -> dict[str, Any]:
    """The summary that ends the output of `restic backup --json`."""
    for line in reversed(output.splitlines()):
        if b'"summary"' in line:
            return dict(json.loads(line))
    raise BackupFailed("restic ended without a summary.")


def _tags(texts: Sequence[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)
