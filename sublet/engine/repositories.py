"""The repositories that one daemon uses: which one is meant, how it is opened, what it holds."""

from __future__ import annotations

from sublet.domain.backup import Backup
from sublet.domain.config import Config
from sublet.domain.names import is_id
from sublet.domain.repositories import check_repository, is_local
from sublet.drivers.restic import Account, Repository
from sublet.engine import backup_records as records


class Repositories:
    """The repositories of one daemon, which its settings and its commands name."""

    def __init__(self, config: Config) -> None:
        self._default = config.repository
        self._account = Account(
            config.password_file,
            config.root / "backup.env",
            config.root / "backup-cache",
            config.root / "backup.ssh",
        )

    def address(self, text: str) -> str:
        """The repository that is meant, the configured one where none is named. Raises
        InvalidArgument."""
        return check_repository(text) if text else self._default

    def at(self, address: str) -> Repository:
        """The repository at an address."""
        return Repository(address, self._account)

    def there(self, address: str) -> Repository | None:
        """The same, None where it is a directory that is not there."""
        repository = self.at(address)
        return repository if repository.made or not is_local(address) else None

    async def backups(self, address: str) -> list[Backup]:
        """What a repository holds; nothing where there is none yet. Raises
        RepositoryUnavailable."""
        if repository := self.there(address):
            found = [records.of_tags(kept, address) for kept in await repository.snapshots()]
            return [backup for backup in found if is_id(backup.id)]
        return []
