"""The keys that leave a process without ending it."""

from __future__ import annotations

from sublet.domain.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_SYMBOLS = "@[\\]^_"


def parse_keys(text: str) -> bytes:
    """What a terminal sends for `ctrl-p,ctrl-q`, or for single characters, between commas.

    Raises InvalidArgument.
    """
    return bytes(_key(word) for word in text.split(","))


def _key(word: str) -> int:
    if len(word) == 1 and word.isascii() and word.isprintable():
        return ord(word)
    kind, _, letter = word.partition("-")
    if kind == "ctrl" and len(letter) == 1 and (letter in _SYMBOLS or "a" <= letter <= "z"):
        return ord(letter.upper()) & 0x1F
    raise InvalidArgument(
        f"'{word}' is not a key.", hint="Write --detach-keys ctrl-p,ctrl-q, or letters."
    )


class Detaching:
    """Watches what is typed for a sequence of keys."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """What of the input is to be passed on: what may be the sequence's beginning is held
        back. `done` when the sequence is complete."""
        passed = bytearray()
        for byte in data:
            self._held += bytes([byte])
            while not self._keys.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                self.done = True
                break
        return bytes(passed)
