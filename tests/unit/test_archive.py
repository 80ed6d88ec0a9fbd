"""Tar streams: made and read as other tools do, and harmless whatever they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sublet.archive.compressed import plain
from sublet.archive.entry import END, Entry, header
from sublet.archive.making import Rules
from sublet.archive.pack import Options
from sublet.archive.transfer import Received, receive, send
from sublet.domain.errors import CopyFailed, CorruptArchive, NoSuchPath, SubletError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where to unpack, beside something that must not be touched."""
    (tmp_path / "secret").write_text("untouched")
    (tmp_path / "into").mkdir()
    yield tmp_path / "into"
    assert (tmp_path / "secret").read_text() == "untouched"
    assert not (tmp_path / "secret").stat().st_mode & 0o111
    assert sorted(os.listdir(tmp_path)) == ["into", "secret"]


def tree(place: Path) -> Path:
    source = place / "source"
    deep = source / ("long" * 40) / ("name" * 40)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(os.urandom(1 << 20))
    (source / "new\nline").write_text("x")
    (source / os.fsdecode(b"\xff")).write_text("no UTF-8")
    (source / "run").write_text("#!")
    (source / "run").chmod(0o4755)
    (source / "other name").hardlink_to(source / "run")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "fifo")
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    for number, path in enumerate(sorted(source.rglob("*"), reverse=True)):
        os.utime(path, (number, number), follow_symlinks=False)
    return source


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        regular = stat.S_ISREG(status.st_mode)
        data = path.read_bytes() if regular else os.readlink(path) if path.is_symlink() else ""
        kind, mode = stat.S_IFMT(status.st_mode), status.st_mode & 0o1777
        links = status.st_nlink if regular else 0
        found[str(path.relative_to(root))] = (kind, mode, int(status.st_mtime), data, links)
    return found


def test_there_and_back(tmp_path: Path) -> None:
    source = tree(tmp_path)
    stream = list(send(str(source), follow=False))
    target = tmp_path / "target"
    done = receive(stream, str(target), Rules(), archive=False)
    assert done == Received(len(facts(source)) + 1, 0)
    assert facts(target) == facts(source)
    assert (target / "sparse").stat().st_blocks < 1000
    assert not (target / "run").stat().st_mode & stat.S_ISUID
    assert list(send(str(source), follow=False)) == stream


@pytest.mark.parametrize("how", ["gnu", "posix", "pax"])
def test_archives_of_gnu_tar(tmp_path: Path, how: str) -> None:
    source = tree(tmp_path)
    argv = ["tar", f"--format={how}", "--sparse", "-C", str(source), "-c", "."]
    data = subprocess.run(argv, capture_output=True, check=True).stdout
    (tmp_path / "target").mkdir()
    receive([data], str(tmp_path / "target"), Rules(), archive=True)
    assert facts(tmp_path / "target") == facts(source)


def test_gnu_tar_reads_ours(tmp_path: Path) -> None:
    source = tree(tmp_path)
    data = b"".join(send(str(source), follow=False))
    (tmp_path / "target").mkdir()
    subprocess.run(["tar", "-x", "-C", str(tmp_path / "target")], input=data, check=True)
    assert facts(tmp_path / "target/source") == facts(source)


def test_deeper_than_a_path_may_be(tmp_path: Path) -> None:
    """Deeper than PATH_MAX, Python's recursion and the number of open files."""
    back = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(3000):
            os.mkdir("deep")
            os.chdir("deep")
        Path("file").write_text("bottom")
        os.fchdir(back)
        stream = list(send(str(tmp_path / "deep"), follow=False))
        assert receive(stream, str(tmp_path / "copy"), Rules(), archive=False).count == 3001
    finally:
        os.fchdir(back)
        os.close(back)
        subprocess.run(["rm", "-rf", str(tmp_path / "deep"), str(tmp_path / "copy")], check=True)


def test_extended_attributes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.setxattr(tmp_path / "file", "user.note", b"a\n=\0b")
    for kept in (True, False):
        stream = list(send(str(tmp_path / "file"), follow=False, options=Options(xattrs=True)))
        receive(stream, str(tmp_path / "copy"), Rules(xattrs=kept), archive=False)
        assert os.listxattr(tmp_path / "copy") == (["user.note"] if kept else [])


def test_a_fifo_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CopyFailed, match="FIFO"):
        list(send(str(tmp_path / "fifo"), follow=False))
    with pytest.raises(NoSuchPath):
        list(send(str(tmp_path / "nothing"), follow=False))


def test_links_at_the_source(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    for follow, kind in ((False, tarfile.SYMTYPE), (True, tarfile.REGTYPE)):
        data = b"".join(send(str(tmp_path / "link"), follow=follow))
        with tarfile.open(fileobj=io.BytesIO(data)) as read:
            member = read.getmembers()[0]
        assert (member.name, member.type) == ("link", kind)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_compressed_streams(pack: Callable[[bytes], bytes]) -> None:
    data = os.urandom(50_000) + bytes(1 << 20)
    pieces = pack(data[:30_000]) + pack(data[30_000:])
    for step in (3, 7000, 1 << 21):
        cut = (pieces[at : at + step] for at in range(0, len(pieces), step))
        assert b"".join(plain(cut)) == data
    if pack is not bytes:
        for damaged in (pieces[:-10], pieces[:1000] + bytes(1000) + pieces[2000:]):
            with pytest.raises(CorruptArchive):
                list(plain([damaged]))


# What a hostile archive tries


def entry(name: str, kind: str, data: bytes = b"", **fields: object) -> bytes:
    made = Entry(name, kind, size=len(data), **fields)  # type: ignore[arg-type]
    return header(made) + data + bytes(-len(data) % 512)


LINK_OUT = entry("x/out", "2", link="../..")
HOSTILE = {
    "up": entry("../secret", "0", b"bad"),
    "up later": entry("x", "5") + entry("x/../../secret", "0", b"bad"),
    "through a link": entry("x", "5") + LINK_OUT + entry("x/out/secret", "0", b"bad"),
    "a link for a directory": LINK_OUT + entry("x/out/", "5") + entry("x/out/secret", "0", b"bad"),
    "a hard link out": entry("x", "5") + entry("x/hard", "1", link="../../secret"),
    "a hard link through a link": LINK_OUT + entry("x/hard", "1", link="x/out/secret"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("rules", [Rules(), Rules(follow=True)], ids=["host", "instance"])
@pytest.mark.parametrize("archive", [False, True])
def test_ways_out(place: Path, data: bytes, rules: Rules, archive: bool) -> None:
    with pytest.raises((CorruptArchive, CopyFailed, NoSuchPath)):
        receive([data + END], str(place), rules, archive=archive)


@pytest.mark.parametrize("archive", [False, True])
def test_absolute_names_are_below(place: Path, archive: bool) -> None:
    data = entry(f"{place.parent}/secret", "0", b"bad") + END
    receive([data], str(place), Rules(), archive=archive)


def test_a_link_that_was_there_is_for_the_host_no_directory(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "link").symlink_to("elsewhere")
    data = [entry("link/file", "0", b"x") + END]
    with pytest.raises(CopyFailed, match="no directory"):
        receive(data, str(place), Rules(), archive=True)
    receive(data, str(place), Rules(follow=True), archive=True)
    assert (place / "elsewhere/file").read_text() == "x"


def test_a_link_in_the_place_of_a_file_is_replaced(place: Path) -> None:
    (place / "x").symlink_to("../secret")
    data = entry("x", "0", b"bad") + entry("y", "2", link="../secret") + entry("y", "0", b"bad")
    receive([data + END], str(place), Rules(), archive=True)
    assert (place / "x").read_text() == (place / "y").read_text() == "bad"


def test_devices_and_special_bits_stay_out(place: Path) -> None:
    data = entry("x", "5") + entry("x/null", "3", device=(1, 3)) + entry("x/disk", "4")
    data += entry("x/su", "0", b"", mode=0o6755) + END
    assert receive([data], str(place), Rules(), archive=True) == Received(2, 2)
    assert (place / "x/su").stat().st_mode & 0o7777 == 0o755


def test_a_sparse_bomb_takes_no_room(place: Path) -> None:
    data = header(Entry("bomb", "0", size=1 << 40, extents=((1 << 39, 0), (1 << 40, 0)))) + END
    receive([data], str(place), Rules(), archive=True)
    assert (place / "bomb").stat().st_size == 1 << 40
    assert (place / "bomb").stat().st_blocks < 100


GOOD = entry("x", "0", b"data" * 1000) + END
DAMAGED = {
    "cut in the data": GOOD[:1000],
    "cut in a header": GOOD[:100],
    "empty": b"",
    "no archive": b"text" * 1000,
    "a huge size": header(Entry("x", "0", size=1 << 60)),
    "a huge extension": header(Entry("x", "0")).replace(b"0" * 11, b"7" * 11, 1),
    "holes that overlap": header(Entry("x", "0", size=9, extents=((5, 4), (2, 4)))) + END,
    "holes beyond the end": header(Entry("x", "0", size=9, extents=((5, 40),))) + END,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damage_leaves_no_file(place: Path, data: bytes) -> None:
    with pytest.raises(SubletError):
        receive([data], str(place / "x"), Rules(), archive=False)
    assert os.listdir(place) == []


def test_files_and_directories_do_not_replace_each_other(place: Path) -> None:
    (place / "d/below").mkdir(parents=True)
    (place / "f").touch()
    for data in (entry("d", "0", b"x"), entry("f", "5"), entry("d", "2", link="x")):
        with pytest.raises(CopyFailed):
            receive([data + END], str(place), Rules(), archive=True)
    assert sorted(os.listdir(place)) == ["d", "f"]


def test_an_archive_without_its_end_is_an_error(place: Path) -> None:
    with pytest.raises(CorruptArchive, match="too early"):
        receive([GOOD[:-1024]], str(place / "x"), Rules(), archive=False)
