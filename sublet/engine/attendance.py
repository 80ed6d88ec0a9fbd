"""Use of instances that leaves no trace in their counters: sessions, keep-alives."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping

from sublet.domain.units import format_left
from sublet.drivers.store.keepalives import KeepaliveStore


class Attendance:
    """Who attends to the instances of one daemon. `watched` are those that somebody looks at;
    `now` is a steady clock."""

    def __init__(
        self, store: KeepaliveStore, watched: Container[str], now: Callable[[], float]
    ) -> None:
        self._store, self._watched, self._now = store, watched, now
        self._sessions: dict[str, Counter[str]] = {}
        self._touched: dict[str, str] = {}
        left = {name: until - time.time() for name, until in store.all().items()}
        self._kept = {name: now() + seconds for name, seconds in left.items() if seconds > 0}

    @contextlib.contextmanager
    def session(self, instance_id: str, kind: str) -> Iterator[None]:
        """Somebody is attached to it for as long as the block lasts."""
        sessions = self._sessions.setdefault(instance_id, Counter())
        sessions[kind] += 1
        try:
            yield
        finally:
            sessions[kind] -= 1
            if not +sessions:
                self._sessions.pop(instance_id, None)
            self.touch(instance_id, f"a session has just ended: {kind}")

    def touch(self, instance_id: str, why: str) -> None:
        """It counts as used at the next look, if there is one."""
        if instance_id in self._watched:
            self._touched[instance_id] = why

    def keep(self, instance_id: str, seconds: float) -> None:
        """It counts as used now, and for so many seconds more; an earlier keep-alive ends."""
        self.touch(instance_id, "it was kept alive")
        if seconds:
            self._kept[instance_id] = self._now() + seconds
            self._store.set(instance_id, time.time() + seconds)
        else:
            self._kept.pop(instance_id, None)
            self._store.forget(instance_id)

    def left(self, instance_id: str) -> float:
        """Seconds that it is kept alive for."""
        return max(0.0, self._kept.get(instance_id, 0.0) - self._now())

    def because(self, instance_id: str, seen: Mapping[str, int]) -> list[str]:
        """Why it counts as used. `seen` are sessions that do not come through the daemon."""
        found = [self._touched[instance_id]] if instance_id in self._touched else []
        sessions = {**seen, **self._sessions.get(instance_id, {})}
        if kinds := [kind for kind, count in sorted(sessions.items()) if count]:
            found.append(f"somebody is attached: {', '.join(kinds)}")
        if left := self.left(instance_id):
            found.append(f"it is kept alive for {format_left(left)} more")
        return found

    def looked(self, instance_id: str) -> None:
        """What ended before this look does not count at the next one."""
        self._touched.pop(instance_id, None)

    def gone(self, instance_id: str) -> None:
        """It is deleted."""
        self._touched.pop(instance_id, None)
        self._kept.pop(instance_id, None)
