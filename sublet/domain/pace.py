"""How often somebody may ask: a leaky bucket, known as GCRA (ITU-T I.371)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """So many a second in the long run, and `burst` at once."""

    rate: int
    burst: int

    def next(self, due: float, now: float) -> tuple[float, float]:
        """What to hand in next time as `due` (0 at first), and for how many seconds to wait."""
        due = max(due, now - (self.burst - 1) / self.rate)
        return due + 1 / self.rate, max(0.0, due - now)
