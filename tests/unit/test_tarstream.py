"""The filter before the packer: what it takes out, and what it refuses."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import CorruptImage
from sublet.image import tarstream


def archive(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, size: int = 3, **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = size, {key.replace("__", "."): pax[key] for key in pax}
    return info


def strip(data: bytes) -> bytes:
    sink = io.BytesIO()
    tarstream.strip(io.BytesIO(data), sink)
    return sink.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def test_only_harmless_attributes_stay() -> None:
    pax = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.kept": "1",
        "SCHILY.xattr.security.capability": "\1\2",
        "SCHILY.xattr.security.selinux": "x",
        "LIBARCHIVE.xattr.trusted.overlay.opaque": "eQ==",
        "path": "lang/" + "n" * 200,
    }
    info = member("a")
    info.pax_headers = pax
    (result,) = members(strip(archive(info)))
    assert set(result.pax_headers) == {
        "SCHILY.xattr.user.kept",
        "SCHILY.xattr.security.capability",
        "path",
    }


def test_plain_archives_stay_the_same() -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        data = archive(member("a", 1000), member("b", 0), member("c", 512), form=form)
        assert [(m.name, m.size) for m in members(strip(data))] == [
            ("a", 1000),
            ("b", 0),
            ("c", 512),
        ]


def test_long_names_stay() -> None:
    name = "d/" * 100 + "x"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        (result,) = members(strip(archive(member(name), form=form)))
        assert result.name == name


def test_a_size_has_one_meaning() -> None:
    """A pax `size` that differs from the header's: the header is rewritten to it."""
    info = member("a", 1024)
    info.pax_headers = {"size": "512"}
    data = archive(info)
    first = strip(data[: data.index(b"x" * 512) + 512] + bytes(1024))
    (result,) = members(first)
    assert (result.size, result.pax_headers) == (512, {})


def test_links_have_no_content() -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.LNKTYPE, "a"
    header = bytearray(link.tobuf())
    header[124:136] = b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = archive(member("a"))[:1024] + bytes(header) + archive(member("b"))
    assert [m.name for m in members(strip(data))] == ["a", "link", "b"]


@pytest.mark.parametrize(
    "data",
    [b"", bytes(1024), b"x" * 512, archive(member("a", 5000))[:2000], archive(member("a"))[:600]],
)
def test_damaged_archives_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptImage):
        strip(data)


def test_unknown_types_are_refused() -> None:
    info = member("a")
    info.type = b"Z"
    with pytest.raises(CorruptImage, match="unknown type"):
        strip(archive(info))


@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=8), st.booleans())
def test_hostile_bytes_raise_nothing_else(patches: list[tuple[int, int]], fix: bool) -> None:
    data = bytearray(archive(member("a", 30, user__x="1"), member("b")))
    for position, value in patches:
        data[position] = value
    if fix:
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
    try:
        strip(bytes(data))
    except CorruptImage:
        return
