"""Repositories of backups, kept by restic(1): deduplicated, encrypted, near or far.

Its password and credentials are in files and in the environment alone, never on a command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sublet.domain.errors import BackupFailed, ProcessFailed, RepositoryUnavailable
from sublet.domain.repositories import is_local
from sublet.drivers import run
from sublet.drivers.confine import caged
from sublet.drivers.restic import answers
from sublet.drivers.restic.account import Account
from sublet.drivers.restic.answers import Done, Kept

GRACE = 8.0
"""Seconds in which an interrupted restic removes its lock and ends."""

LOCK_PATIENCE, LOCK_PAUSE = 120.0, 1.0
"""Seconds to wait for somebody else's lock, and between two looks."""

_HURRIED = 5.0
"""The same, where one can do without."""

_FOREVER = 30 * 86400.0
_LIST = 64 << 20
"""Bytes of a list of snapshots at most."""


class Repository:
    """One repository. Every call opens it anew, which takes restic half a second."""

    def __init__(self, address: str, account: Account) -> None:
        self.address, self._account = address, account

    # Opening

    def _env(self) -> dict[str, str]:
        return self._account.environment(self.address)

    def _argv(self, *args: str) -> list[str]:
        return ["restic", "--json", *self._account.options(self.address), *args]

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

    async def _patient(
        self, argv: list[str], patience: float = LOCK_PATIENCE, **options: Any
    ) -> run.Result:
        waited = 0.0
        options = {"timeout": _FOREVER, "grace": GRACE, **options}
        while True:
            result = await run.run(argv, check=False, env=self._env(), **options)
            if not result.code or not answers.locked(result) or waited >= patience:
                return result
            await run.run(self._argv("unlock"), check=False, env=self._env())  # stale ones only
            await asyncio.sleep(LOCK_PAUSE)
            waited += LOCK_PAUSE

    def _fail(self, action: str, result: run.Result) -> NoReturn:
        answers.fail(action, result, self.address, self._account)

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
        self._account.make_password()
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
        if result.code and not answers.present(result):
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
            if done := answers.status(line):
                report(done)

        result = await self._run(*argv, "--", *paths, cwd=directory, on_line=told)
        return str(answers.summary(result.stdout)["snapshot_id"])

    async def index(self) -> None:
        """Find what interrupted runs have sent, so that the next one need not send it again."""
        await self._run("rebuild-index", patience=_HURRIED)

    async def forget(self, snapshots: Sequence[str]) -> None:
        """Remove snapshots; what they took is given back by `prune`."""
        if snapshots:
            await self._run("forget", *snapshots)

    async def prune(self) -> None:
        """Give back what no snapshot needs."""
        await self._run("prune")

    # Reading

    async def snapshots(self) -> list[Kept]:
        """What Sublet keeps in the repository, also while others change it. Raises."""
        result = await self._run("snapshots", "--no-lock", "--tag", "sublet=1", most=_LIST)
        return answers.listed(result.stdout)

    async def read(self, snapshot: str, path: str, most: int) -> bytes:
        """One small file of a snapshot. Raises."""
        try:
            return (await self._run("dump", snapshot, path, most=most)).stdout
        except ProcessFailed as error:
            raise BackupFailed(f"{path} in the backup cannot be read: {error.message}") from error

    async def restore(self, snapshot: str, target: Path, own: Sequence[str] = ()) -> None:
        """Write a snapshot into the directory, which nobody else can reach, and compare it.

        In a cage that has nothing but the two: the repository may be a stranger's. The directories
        in it that are our `own` are left alone, whatever a snapshot has for them.
        """
        without = [f"--exclude=/{name}" for name in own]
        argv = self._argv("restore", snapshot, "--target", "/target", "--verify", *without)
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
        argv = caged(
            argv,
            places,
            network=not is_local(self.address),
            name="sublet-restore",
        )
        result = await run.run(argv, check=False, env=env, timeout=_FOREVER, grace=GRACE)
        if result.code:
            self._fail("restore", result)

    async def check(self, *, data: bool) -> None:
        """Verify the repository, with `data` every byte of it. Raises BackupFailed."""
        await self._run("check", *(["--read-data"] if data else []))
