"""Where backups are kept: how repositories are written."""

from __future__ import annotations

import re

from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import normal

_SFTP = re.compile(r"sftp:(?://)?(?:[\w.][\w.-]*@)?[A-Za-z0-9\[][\w.:\]-]*[:/]\S*")
_REMOTE = re.compile(r"(?:s3|b2|azure|gs|swift|rest):\S+")
_PASSWORD = re.compile(r"//[^/@\s]*:[^/@\s]*@")


def check_repository(text: str) -> str:
    """`text`, if it names a repository: an absolute path, or what restic knows by its prefix.
    Raises InvalidArgument."""
    if text.startswith("/") and "\0" not in text and ".." not in text.split("/"):
        return normal(text)
    if _PASSWORD.search(text):
        raise InvalidArgument(
            "The repository's address has a password in it, which would show in lists and logs.",
            hint="Put credentials into SUBLET_ROOT/backup.env, NAME=VALUE a line, mode 600.",
        )
    if _SFTP.fullmatch(text) or _REMOTE.fullmatch(text):
        return text
    raise InvalidArgument(
        f"'{text}' is not a repository.",
        hint="Write /DIRECTORY, sftp:USER@HOST:/DIRECTORY or s3:https://HOST/BUCKET.",
    )


def is_local(repository: str) -> bool:
    """Whether a repository is a directory of this host."""
    return repository.startswith("/")
