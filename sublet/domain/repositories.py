"""Where backups are kept: how repositories are written."""

from __future__ import annotations

import re

from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import normal

_USER, _HOST = r"(?:[\w.][\w.-]*@)?", r"[A-Za-z0-9][\w.-]*"
_SFTP = re.compile(rf"sftp:(?://({_USER}{_HOST})(?::(\d{{1,5}}))?/\S+|({_USER}{_HOST}):\S+)")
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


def sftp_host(repository: str) -> list[str]:
    """What ssh(1) is to be told of where an SFTP repository is, as restic's manual has it:
    `sftp:USER@HOST:/PATH` or `sftp://USER@HOST:PORT//PATH`; nothing for any other."""
    match = _SFTP.fullmatch(repository)
    if not match:
        return []
    port = ["-p", match[2]] if match[2] else []
    return [*port, match[1] or match[3]]
