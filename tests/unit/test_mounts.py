"""Mounts: all that `-v`, `--mount` and `--tmpfs` can say, and the volumes that an image wants."""

from __future__ import annotations

import pytest

from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import (
    Mount,
    MountType,
    check_mounts,
    parse_long_mount,
    parse_mount,
    parse_tmpfs,
    with_volumes,
)


def test_long_mounts() -> None:
    assert parse_long_mount("type=bind,source=/srv,target=/data,readonly") == Mount(
        "/srv", "/data", True
    )
    assert parse_long_mount("src=db,dst=/data,volume-nocopy") == Mount(
        "db", "/data", type=MountType.VOLUME, nocopy=True
    )
    assert parse_long_mount("target=/data") == Mount("", "/data", type=MountType.VOLUME)
    assert parse_long_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700") == Mount(
        "", "/t", type=MountType.TMPFS, size=1 << 20, mode="700"
    )


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,target=/data",
        "type=bind,source=relative,target=/data",
        "type=bind,source=/a/../b,target=/data",
        "type=volume,source=../x,target=/data",
        "type=volume,source=/x,target=/data",
        "type=tmpfs,source=/x,target=/data",
        "type=tmpfs,target=/data,tmpfs-mode=9",
        "type=tmpfs,target=/data,tmpfs-size=-1",
        "type=npipe,source=/x,target=/data",
        "type=bind,source=/x",
        "type=bind,source=/x,target=/data,bind-propagation=shared",
        "type=volume,source=x,target=/proc/1",
    ],
)
def test_malformed_long_mounts(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_long_mount(text)


def test_copy_on_write() -> None:
    wanted = Mount("/srv", "/data", cow=True)
    assert parse_mount("/srv:/data:cow") == wanted
    assert parse_mount("/srv:/data:O") == wanted
    assert parse_long_mount("type=bind,source=/srv,target=/data,cow") == wanted
    check_mounts([wanted])
    for mount in (
        Mount("/srv", "/data", True, cow=True),
        Mount("db", "/data", type=MountType.VOLUME, cow=True),
        Mount("", "/data", type=MountType.TMPFS, cow=True),
    ):
        with pytest.raises(InvalidArgument):
            check_mounts([mount])
    for text in ("/srv:/data:cow,ro", "db:/data:cow", "/srv:/data:copy"):
        with pytest.raises(InvalidArgument):
            parse_mount(text)


def test_memory() -> None:
    assert parse_tmpfs("/t:size=1m,mode=700,ro") == Mount(
        "", "/t", True, MountType.TMPFS, 1 << 20, "700"
    )
    for text in ("/t:exec", "/t:mode=x", "t", "/dev/shm"):
        with pytest.raises(InvalidArgument):
            parse_tmpfs(text)


def test_one_place_has_one_mount() -> None:
    with pytest.raises(InvalidArgument, match="Two mounts"):
        check_mounts([Mount("/a", "/x"), Mount("", "/x", type=MountType.TMPFS)])


def test_volumes_of_the_image() -> None:
    own = (Mount("/srv", "/data"),)
    wanted = ["/data", "/var//lib/", "/var/lib", "/proc/1", "/", "relative", "/a/../b", "/x\0"]
    assert with_volumes(own, wanted) == (*own, Mount("", "/var/lib", type=MountType.VOLUME))


def test_options_for_other_hosts_mean_nothing_here() -> None:
    assert parse_mount("/srv:/srv:Z,ro") == parse_mount("/srv:/srv:ro")
    assert parse_mount("/srv:/srv:cached") == parse_mount("/srv:/srv")
