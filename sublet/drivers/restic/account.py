"""How repositories are opened: their password, credentials and addresses, as restic(1) takes them.

None of it is on a command line.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import InvalidArgument
from sublet.domain.repositories import is_local, sftp_host
from sublet.drivers import files

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_PATIENCE = ("ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=4")
"""A machine that is off, or gone, is noticed within a minute or so, not in hours."""


@dataclass(frozen=True, slots=True)
class Account:
    """How repositories are opened: the files with their password and with credentials, where
    restic may keep what it fetched, and a directory that may hold a `config` of ssh(1)."""

    password: Path
    credentials: Path
    cache: Path
    ssh: Path

    def environment(self, address: str) -> dict[str, str]:
        """What restic is told of a repository. Raises InvalidArgument."""
        return {
            **_credentials(self.credentials),
            "RESTIC_REPOSITORY": address,
            "RESTIC_PASSWORD_FILE": str(self.password),
            "RESTIC_CACHE_DIR": str(self.cache),
            "RESTIC_PROGRESS_FPS": "1",
            "TZ": "UTC",
        }

    def options(self, address: str) -> list[str]:
        """The flags that a repository needs."""
        options = ["--no-cache"] if is_local(address) else []
        if host := sftp_host(address):
            config = self.ssh / "config"
            own = ["-F", str(config)] if config.exists() else []
            waits = [word for option in _PATIENCE for word in ("-o", option)]
            command = ["ssh", "-o", "BatchMode=yes", *own, *waits, *host, "-s", "sftp"]
            options += ["-o", f"sftp.command={shlex.join(command)}"]
        return options

    def make_password(self) -> None:
        """Write a new password: all of it, or no file."""
        self.password.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        draft = self.password.with_name(f".{self.password.name}.new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as opened:
            opened.write(f"{secrets.token_urlsafe(32)}\n")
            opened.flush()
            os.fsync(opened.fileno())
        draft.rename(self.password)
        files.sync(self.password.parent)


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
