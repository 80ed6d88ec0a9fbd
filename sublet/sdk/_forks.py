"""What a forked child must not have: it would keep a connection open that is to end with us."""

from __future__ import annotations

import os
import weakref

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

_ours: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_from_children(holder: Any) -> None:
    """Children of this process that are forked do not share the file that `holder` tells the
    number of (`fileno`, -1 once closed)."""
    _ours.add(holder)


def _let_go() -> None:
    """Put nothing in the place of each: its number is in use still, as far as Python knows."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for holder in list(_ours):
        if (number := holder.fileno()) >= 0:
            os.dup2(null, number, inheritable=False)
    os.close(null)
    _ours.clear()


os.register_at_fork(after_in_child=_let_go)
