"""What comes out of a repository is looked at before an instance gets it.

The repository may be another host's, and who has its password may have put anything there. An
instance's files belong to its own user ids, have no devices among them, and carry no attributes
that tell the kernel's overlay about files elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sublet.domain.errors import UntrustedBackup

_ATTRIBUTES = ("user.", "system.posix_acl_", "trusted.overlay.")
_LABELS = frozenset({"security.capability", "security.selinux"})
_ELSEWHERE = frozenset({"trusted.overlay.redirect", "trusted.overlay.metacopy"})
"""Attributes by which a file of the upper layer shows another one's place or content (kernel,
Documentation/filesystems/overlayfs.rst); our overlays are mounted without either."""


def screen(tree: Path, ids: range, *, host_root: bool) -> None:
    """Raises UntrustedBackup unless all in the tree, which nobody changes, may be an instance's.

    `ids` are its users and groups, with `host_root` the host's root too: the overlay's own.
    """
    for path, status in walk(tree):
        name = os.path.relpath(path, tree)
        for owner in (status.st_uid, status.st_gid):
            if owner not in ids and not (host_root and owner == 0):
                raise _refused(name, f"belongs to user or group {owner}")
        whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        if stat.S_ISBLK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and not whiteout):
            raise _refused(name, "is a device")
        for attribute in os.listxattr(path, follow_symlinks=False):
            known = attribute.startswith(_ATTRIBUTES) or attribute in _LABELS
            if not known or attribute in _ELSEWHERE:
                raise _refused(name, f"has the attribute {attribute}")


def _refused(name: str, why: str) -> UntrustedBackup:
    shown = name.encode(errors="replace").decode()
    return UntrustedBackup(
        f"The backup cannot be an instance's: '{shown[:200]}' {why}.",
        hint="Restore another one; no flag lets this one in.",
    )


def walk(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The tree itself and all that is in it, links not followed."""
    pending = [str(tree)]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            pending += [f"{path}/{name}" for name in os.listdir(path)]


def shift(tree: Path, base: int, count: int) -> None:
    """Give files of an instance whose user ids begin at `base` the ids that it sees itself."""
    for path, status in walk(tree):
        uid, gid = (
            owner - base if base <= owner < base + count else owner
            for owner in (status.st_uid, status.st_gid)
        )
        if (uid, gid) == (status.st_uid, status.st_gid):
            continue
        link = stat.S_ISLNK(status.st_mode)
        kept = None if link else _capability(path)
        os.lchown(path, uid, gid)
        if not link:
            os.chmod(path, stat.S_IMODE(status.st_mode))  # chown drops what gives rights
        if kept is not None:
            os.setxattr(path, "security.capability", kept, follow_symlinks=False)


def _capability(path: str) -> bytes | None:
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return None
