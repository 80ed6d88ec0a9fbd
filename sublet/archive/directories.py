"""A way down through directories that does not leave them, whatever others do meanwhile.

Every step is one component, opened below the descriptor of the step before and never through a
symbolic link: openat2(2)'s RESOLVE_BENEATH with RESOLVE_NO_SYMLINKS, for paths of any length
and depth.
"""

from __future__ import annotations

import os
from collections.abc import Callable

OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
KEPT = 32
"""Open descriptors at most; what lies further up is opened again when the way leads back."""

Enter = Callable[[int, str], int]


def enter(parent: int, name: str) -> int:
    """A descriptor of the directory `name` in `parent`; a symbolic link is none."""
    return os.open(name, OPEN, dir_fd=parent)


class Way:
    """The directories from `root` (which stays the caller's) down to where one is."""

    def __init__(self, root: int, step: Enter = enter) -> None:
        self._root = root
        self._step = step
        self.names: list[str] = []
        self._open: list[int] = []

    @property
    def fd(self) -> int:
        """A descriptor of the innermost directory."""
        if not self.names:
            return self._root
        if not self._open:
            at = self._root
            for name in self.names:
                following = self._step(at, name)
                self._keep(following)
                at = following
        return self._open[-1]

    def down(self, name: str) -> None:
        """Enter the directory `name`. Raises OSError where there is none."""
        fd = self._step(self.fd, name)
        self.names.append(name)
        self._keep(fd)

    def up(self) -> str:
        """Leave the innermost directory; its name."""
        if self._open:
            os.close(self._open.pop())
        return self.names.pop()

    def _keep(self, fd: int) -> None:
        self._open.append(fd)
        if len(self._open) > KEPT:
            os.close(self._open.pop(0))

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())
