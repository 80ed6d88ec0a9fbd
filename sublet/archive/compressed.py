"""Compressed tar streams, as `cp -` takes them: gzip, bzip2 and xz, told by their first bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from sublet.domain.errors import CorruptArchive

_SLICE = 1 << 12
"""Bytes that are decompressed at a time: what comes out may be a thousand times as long."""


def plain(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The stream without its compression, if it has one. Raises CorruptArchive."""
    iterator = iter(pieces)
    first = b""
    while len(first) < 6 and (piece := next(iterator, b"")):
        first += piece
    kind = _kind(first)
    whole = itertools.chain((first,), iterator)
    if not kind:
        yield from whole
        return
    errors: tuple[type[Exception], ...] = (OSError, EOFError, *_errors(kind))
    try:
        yield from _decompressed(kind, whole)
    except errors as error:
        raise CorruptArchive(f"The {kind} stream is damaged: {error}.") from error


def _kind(start: bytes) -> str:
    magics = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
    return next((kind for magic, kind in magics.items() if start.startswith(magic)), "")


def _decompressed(kind: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Also several compressed streams one after the other, as some tools write."""
    current, begun = _decompressor(kind), False
    for piece in pieces:
        for start in range(0, len(piece), _SLICE):
            data = piece[start : start + _SLICE]
            while data:
                if current.eof and not data.strip(b"\0"):
                    break  # some tools fill up with zeros
                if current.eof:
                    current = _decompressor(kind)
                if found := current.decompress(data):
                    yield found
                begun = True
                data = current.unused_data if current.eof else b""
    if not begun or not current.eof:
        raise CorruptArchive(f"The {kind} stream ends too early.")


def _decompressor(kind: str) -> Any:
    if kind == "gzip":
        import zlib

        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor()


def _errors(kind: str) -> tuple[type[Exception], ...]:
    if kind == "gzip":
        import zlib

        return (zlib.error,)
    if kind == "xz":
        import lzma

        return (lzma.LZMAError,)
    return ()
