"""A container's root file system before it runs: read and made safe, never followed out.

Everything is reached through a descriptor of the root with openat2(2): symbolic links
that the image holds are resolved inside it, as RESOLVE_IN_ROOT does.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import InvalidArgument, NoSuchUser
from sublet.domain.mounts import is_system, normal
from sublet.drivers import linux
from sublet.drivers.descriptors import DIRECTORY, closing
from sublet.drivers.namespaces import ID_COUNT

_LIMIT = 1 << 20
_SYSTEM_DIRECTORIES = ("dev", "etc", "proc", "sys")
_REPLACED_FILES = ("hostname", "hosts", "resolv.conf")


@dataclass(frozen=True, slots=True)
class User:
    """Who a process runs as: ids and home directory, as seen inside."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class Root:
    """An open root directory. Use as a context manager; `base` is the host id of its root."""

    def __init__(self, path: Path, base: int) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._base = base

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read_text(self, path: str) -> str:
        """The regular file at `path`, 1 MiB at most; empty where there is none.

        A FIFO or device in its place is not opened for reading (CVE-2024-9676).
        """
        try:
            fd = linux.openat2(self._fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return ""
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return ""
            return file.read(_LIMIT).decode(errors="replace")

    def make_safe(self) -> None:
        """Put real directories and files where the runtime is going to mount.

        An image may hold symbolic links there, to make the host mount elsewhere
        (CVE-2023-27561 and its kind).
        """
        for name in _SYSTEM_DIRECTORIES:
            self._directory(self._fd, name)
        plain = linux.RESOLVE_NO_SYMLINKS
        with closing(linux.openat2(self._fd, "etc", DIRECTORY, resolve=plain)) as etc:
            for name in _REPLACED_FILES:
                self._file(etc, name)

    def check_destination(self, path: str) -> None:
        """Raises InvalidArgument where the image's symbolic links lead a mount to the kernel's
        file systems, or to what is not there yet."""
        try:
            while not self._leads_aside(path):
                if path == "/" or self._exists(path):
                    return
                path = os.path.dirname(path)
        except OSError as error:
            why = error.strerror
        else:
            why = "in this image that is a link to elsewhere"
        raise InvalidArgument(
            f"Nothing may be mounted at '{path}': {why}.", hint="Mount at another path."
        )

    def mount_point(self, path: str, *, directory: bool) -> int:
        """A descriptor of what is at `path`, to mount on; made, with what leads there, if there
        is nothing. Raises InvalidArgument as `check_destination`."""
        self.check_destination(path)
        steps = path.strip("/").split("/")
        for number, name in enumerate(steps):
            try:
                os.close(linux.openat2(self._fd, "/".join(steps[: number + 1]), os.O_PATH))
            except FileNotFoundError:
                above = "/".join(steps[:number]) or "."
                make = self._directory if directory or number < len(steps) - 1 else self._file
                flags = os.O_PATH | os.O_DIRECTORY
                with closing(linux.openat2(self._fd, above, flags)) as parent:
                    make(parent, name)
        return linux.openat2(self._fd, path, os.O_PATH)

    def _leads_aside(self, path: str) -> bool:
        """Whether the path is the kernel's, or a link that leads nowhere."""
        try:
            return path != "/" and is_system(self._resolved(path, os.O_PATH))
        except FileNotFoundError:
            return self._exists(path)

    def _exists(self, path: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(self._resolved(path, os.O_PATH | os.O_NOFOLLOW))
        return False

    def _resolved(self, path: str, flags: int) -> str:
        """The path inside to which `path` leads; FileNotFoundError where to nothing."""
        with closing(linux.openat2(self._fd, path, flags)) as fd:
            found = os.readlink(f"/proc/self/fd/{fd}")
        root = os.readlink(f"/proc/self/fd/{self._fd}")
        return normal(found.removeprefix(root))

    def _directory(self, parent: int, name: str) -> None:
        if self._is(parent, name, stat.S_ISDIR):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)
        os.chown(name, self._base, self._base, dir_fd=parent, follow_symlinks=False)

    def _file(self, parent: int, name: str) -> None:
        if self._is(parent, name, stat.S_ISREG):
            return
        if self._is(parent, name, stat.S_ISDIR):
            raise InvalidArgument(
                f"The image has a directory at /etc/{name}, where a file belongs.",
                hint="Build it again without that directory.",
            )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        fd = os.open(name, flags, 0o644, dir_fd=parent)
        os.fchown(fd, self._base, self._base)
        os.close(fd)

    @staticmethod
    def _is(parent: int, name: str, kind: object) -> bool:
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        return bool(callable(kind) and kind(mode))

    def user(self, text: str, join: tuple[str, ...] = ()) -> User:
        """Who `user[:group]` is, by the image's own /etc/passwd and /etc/group; also in the groups
        that `join` names.

        Numbers need no entry. Raises NoSuchUser for a name that is not there.
        """
        return find_user(text, self.read_text("etc/passwd"), self.read_text("etc/group"), join)


def find_user(text: str, passwd: str, group: str, join: tuple[str, ...] = ()) -> User:
    """Who `user[:group]` is by the text of passwd(5) and group(5), with further groups.

    Lines with ids that no instance has do not count: 4294967295 (-1) would leave the process
    with the ids that it has.
    """
    name, _, group_name = text.partition(":")
    entry = _entry(passwd, name or "0", 7, (2, 3))
    uid = int(entry[2]) if entry else _number(name or "0", "user")
    home = (entry[5] if entry else "") or "/"
    further = tuple(_group(group, each) for each in join)
    if group_name:
        return User(uid, _group(group, group_name), further, home)
    gid = int(entry[3]) if entry else 0
    own = _groups_of(group, entry[0] if entry else "")
    return User(uid, gid, tuple(dict.fromkeys(own + further)), home)


def _group(text: str, name: str) -> int:
    """The number of the group, by the text of group(5)."""
    found = _entry(text, name, 4, (2,))
    return int(found[2]) if found else _number(name, "group")


def _entry(text: str, key: str, width: int, ids: tuple[int, ...]) -> list[str] | None:
    """The first well-formed line whose name, or else whose number, is `key`."""
    lines = [line.split(":") for line in text.splitlines()]
    rows = [row for row in lines if len(row) >= width and all(_is_id(row[n]) for n in ids)]
    by_name = next((row for row in rows if row[0] == key), None)
    return by_name or next((row for row in rows if row[2] == key), None)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) < ID_COUNT


def _number(text: str, kind: str) -> int:
    if not _is_id(text):
        raise NoSuchUser(f"The image has no {kind} '{text}'.")
    return int(text)


def _groups_of(text: str, member: str) -> tuple[int, ...]:
    if not member:
        return ()
    rows = [line.split(":") for line in text.splitlines()]
    return tuple(
        int(row[2])
        for row in rows
        if len(row) >= 4 and _is_id(row[2]) and member in row[3].split(",")
    )
