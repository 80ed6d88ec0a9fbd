"""A tar stream from a stranger, made canonical before the packer sees it.

Extended attributes other than `user.*` and `security.capability` are taken out:
`trusted.overlay.*` in an image would be instructions to the overlay above it. Sizes
are rewritten in one form, so that packer and filter cannot disagree on where an
entry ends. Source: POSIX pax(1), "pax Interchange Format"; tar(5) of libarchive for
GNU's extensions.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from sublet.domain.errors import CorruptImage

BLOCK, CHUNK = 512, 1 << 20
MAX_EXTENSION = 4 << 20
_SIZE, _CHECKSUM, _TYPE, _GNU_MORE, _GNU_MORE_NEXT = slice(124, 136), slice(148, 156), 156, 482, 504
_REGULAR, _SPARSE, _EMPTY = b"\x007" + b"0", b"S", b"123456"
_PAX, _LONG = b"xg", b"LK"
_RECORD = re.compile(rb"(\d{1,8}) ")
_XATTR = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")
_KEPT_XATTR = (b"user.", b"security.capability")


def strip(source: BinaryIO, sink: BinaryIO) -> None:
    """Copy the tar archive from `source` to `sink`, canonical and stripped.

    `source` is read to its end. Raises CorruptImage for what is no sound archive.
    """
    pax_size: int | None = None
    entries = 0
    while any(header := _exactly(source, BLOCK)):
        _check(header)
        kind, size = header[_TYPE : _TYPE + 1], _number(header[_SIZE])
        entries += 1
        if kind in _PAX:
            records, found = _records(_extension(source, size))
            if kind == b"x":
                pax_size = found
            if records:
                _write_extension(sink, header, records)
        elif kind in _LONG:
            _write_extension(sink, header, _extension(source, size))
        else:
            _entry(source, sink, header, kind, size if pax_size is None else pax_size)
            pax_size = None
    if not entries:
        raise CorruptImage("The tar archive is empty.")
    sink.write(bytes(2 * BLOCK))
    while source.read(CHUNK):
        pass


def _entry(source: BinaryIO, sink: BinaryIO, header: bytes, kind: bytes, size: int) -> None:
    if kind in _EMPTY:
        size = 0
    elif kind == b"7":  # contiguous: a regular file to everyone today
        header = header[:_TYPE] + b"0" + header[_TYPE + 1 :]
    elif kind not in _REGULAR and kind != _SPARSE:
        raise CorruptImage(f"The tar archive holds an entry of the unknown type {kind!r}.")
    sink.write(_sized(header, size))
    more = kind == _SPARSE and header[_GNU_MORE]
    while more:
        block = _exactly(source, BLOCK)
        sink.write(block)
        more = block[_GNU_MORE_NEXT]
    left = _padded(size)
    while left:
        data = _exactly(source, min(CHUNK, left))
        sink.write(data)
        left -= len(data)


def _records(data: bytes) -> tuple[bytes, int | None]:
    """The pax records that are kept, and the value of the `size` record among them."""
    kept, size, position = bytearray(), None, 0
    while position < len(data):
        match = _RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(data) or data[end - 1] != 0x0A:
            raise CorruptImage("The tar archive holds a malformed pax record.")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals:
            raise CorruptImage("The tar archive holds a malformed pax record.")
        if key == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                raise CorruptImage("The tar archive holds a malformed size.")
            size = int(value)
        elif _kept(key):
            kept += data[position:end]
        position = end
    return bytes(kept), size


def _kept(key: bytes) -> bool:
    for prefix in _XATTR:
        if key.startswith(prefix):
            return key.removeprefix(prefix).startswith(_KEPT_XATTR)
    return True


def _extension(source: BinaryIO, size: int) -> bytes:
    if size > MAX_EXTENSION:
        raise CorruptImage("The tar archive holds an extended header that is too large.")
    return _exactly(source, _padded(size))[:size]


def _write_extension(sink: BinaryIO, header: bytes, data: bytes) -> None:
    sink.write(_sized(header, len(data)) + data.ljust(_padded(len(data)), b"\0"))


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    """A size field: octal text, or GNU's base 256 with the top bit set."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:])
    else:
        text = field.strip(b" \0")
        if not re.fullmatch(rb"[0-7]*", text):
            raise CorruptImage("The tar archive holds a malformed size.")
        value = int(text or b"0", 8)
    if value >= 1 << 62:
        raise CorruptImage("The tar archive holds an impossible size.")
    return value


def _sized(header: bytes, size: int) -> bytes:
    """The header with its size (and so its checksum) rewritten."""
    text = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11)
    fields = bytearray(header)
    fields[_SIZE], fields[_CHECKSUM] = text, b" " * 8
    fields[_CHECKSUM] = b"%06o\0 " % sum(fields)
    return bytes(fields)


def _check(header: bytes) -> None:
    text = header[_CHECKSUM].strip(b" \0")
    plain = header[: _CHECKSUM.start] + b" " * 8 + header[_CHECKSUM.stop :]
    if not re.fullmatch(rb"[0-7]+", text) or int(text, 8) != sum(plain):
        raise CorruptImage("The file is no tar archive, or it is damaged.")


def _exactly(source: BinaryIO, length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise CorruptImage("The tar archive is truncated.")
    return data
