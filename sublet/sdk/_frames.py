"""What an interpreter in a sandbox says among what its code writes. Bytes in, bytes out.

`_interpreter.py` is the other side of this.
"""

from __future__ import annotations

from collections.abc import Iterator

_DIGITS = 4


class Frames:
    """Takes one stream apart."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bool, bytes]]:
        """Take what has come: pieces of output (False), and frames (True) that are complete."""
        self._held += data
        while self._held:
            at = self._held.find(self._mark)
            if at:
                end = len(self._held) - self._begun() if at < 0 else at
                if end:
                    yield False, self._taken(end)
                if at < 0:
                    return
            begin = len(self._mark) + _DIGITS
            if len(self._held) < begin:
                return
            digits = bytes(self._held[len(self._mark) : begin])
            end = begin + (int(digits) if digits.isdigit() else 0)
            if len(self._held) < end:
                return
            yield True, self._taken(end)[begin:]

    def _taken(self, end: int) -> bytes:
        piece = bytes(self._held[:end])
        del self._held[:end]
        return piece

    def _begun(self) -> int:
        """How many bytes at the end may be the beginning of a mark."""
        most = min(len(self._mark) - 1, len(self._held))
        sizes = (n for n in range(most, 0, -1) if self._held.endswith(self._mark[:n]))
        return next(sizes, 0)
