"""Backups: repositories, where paths are kept, plans, and what strangers' manifests may say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.backup import (
    Backup,
    Manifest,
    Piece,
    check_manifest,
    foreign,
    inside,
    located,
    reaches,
    restored,
    superfluous,
)
from sublet.domain.errors import BackupFailed, InvalidArgument
from sublet.domain.mounts import Mount, MountType
from sublet.domain.repositories import check_repository, sftp_host
from sublet.domain.retention import Keep
from sublet.domain.spec import InstanceSpec, Isolation
from sublet.domain.volumes import Volume
from sublet.drivers.restic import Kept
from sublet.engine import backup_records as records
from sublet.engine import staging

PG = Mount("pg", "/data", type=MountType.VOLUME)
SPEC = InstanceSpec("debian:bookworm", name="db", hostname="db", user_data="", mounts=(PG,))
MANIFEST = Manifest(
    instance="0123456789ab",
    name="db",
    image="debian:bookworm",
    digest="sha256:" + "0" * 64,
    spec=SPEC,
    time=5.0,
    running=True,
    pieces=(
        Piece("layer", "files"),
        Piece("volumes/0", "files", volume=Volume("pg", "0011aabbccdd", 1.0)),
    ),
    user_data="#cloud-config",
)


@pytest.mark.parametrize(
    "text",
    [
        "/srv/backups",
        "sftp:backup@nas:/srv/backups",
        "sftp://backup@nas:2222//srv/backups",
        "s3:https://minio.example/bucket",
    ],
)
def test_repositories(text: str) -> None:
    assert check_repository(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "backups",
        "/srv/../etc",
        "sftp:-oProxyCommand=id:/x",
        "rclone:remote:x",
        "local:/x",
        "s3:https://key:secret@minio.example/bucket",
        "rest:https://user:pass@host/",
        "sftp:host:/a b",
    ],
)
def test_no_repositories(text: str) -> None:
    with pytest.raises(InvalidArgument):
        check_repository(text)


def test_what_ssh_is_told() -> None:
    assert sftp_host("sftp:backup@nas:/srv") == ["backup@nas"]
    assert sftp_host("sftp://backup@nas:2222//srv") == ["-p", "2222", "backup@nas"]
    assert sftp_host("sftp://nas/srv") == ["nas"]
    assert sftp_host("/srv/backups") == sftp_host("s3:https://nas/x") == []


def test_where_paths_are() -> None:
    volumes = [("/data", "volumes/0"), ("/data/inner", "volumes/1")]
    assert located("/home/u", volumes) == ("layer", "home/u")
    assert located("/data", volumes) == ("volumes/0", "")
    assert located("/data/x/y", volumes) == ("volumes/0", "x/y")
    assert located("/data/inner/z", volumes) == ("volumes/1", "z")
    assert located("/database", volumes) == ("layer", "database")
    assert inside(["/a//b/", "/a/b"]) == ("/a/b",)
    for path in ("a", "/a/../b", "/a\0"):
        with pytest.raises(InvalidArgument):
            inside([path])


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert staging.load(staging.dump(MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (Piece("../etc", "files"),),
        (Piece("layer", "files"), Piece("volumes/1", "files", volume=Volume("x", "y", 0))),
        (Piece("layer", "files"), Piece("volumes/0", "files")),
        (Piece("layer", "device"),),
        (Piece("layer", "files", -1),),
        (Piece("layer", "files"), Piece("volumes/0", "files", volume=Volume("x", "y", 0))),
    ],
)
def test_strange_manifests(pieces: tuple[Piece, ...]) -> None:
    with pytest.raises(InvalidArgument):
        check_manifest(replace(MANIFEST, pieces=pieces))


@given(st.binary(max_size=200))
def test_noise_is_no_manifest(data: bytes) -> None:
    with pytest.raises((BackupFailed, InvalidArgument)):
        staging.load(data)


def test_what_reaches_out() -> None:
    assert reaches(SPEC) == []
    asked = replace(SPEC, mounts=(Mount("/etc", "/x"),), cap_add=("SYS_ADMIN",), network="host")
    assert [text.split()[-1] for text in reaches(asked)] == ["/etc", "SYS_ADMIN", "host"]


def test_a_strangers_backup_wants_a_volume_that_is_here() -> None:
    """One that it brings along takes a name of its own; one that it only mounts is another's."""
    mounts = tuple(Mount(name, f"/{name}", type=MountType.VOLUME) for name in ("own", "theirs"))
    brought = Piece("volumes/0", "files", volume=Volume("own", "0011aabbccdd", 0))
    manifest = replace(
        MANIFEST,
        spec=replace(SPEC, mounts=mounts),
        pieces=(Piece("layer", "files"), brought),
    )
    check_manifest(manifest)
    assert foreign(manifest, {"own", "other"}) == []
    assert foreign(manifest, {"own", "theirs"}) == ["it mounts the volume theirs"]


def test_what_a_restored_one_asks_for() -> None:
    mounts = (Mount("pg", "/data", type=MountType.VOLUME), Mount("/etc", "/x"))
    manifest = replace(MANIFEST, spec=replace(SPEC, mounts=mounts))
    spec = restored(manifest, "other", vm=True, volumes={"pg": "pg2"})
    assert (spec.name, spec.hostname, spec.isolation) == ("other", "", Isolation.VM)
    assert spec.mounts == (Mount("pg2", "/data", type=MountType.VOLUME), Mount("/etc", "/x"))
    assert spec.user_data == "#cloud-config"
    assert restored(manifest, "db", vm=False, volumes={}).hostname == "db"


@pytest.mark.parametrize("when", ["nan", "inf", "-1", "1e300", "x", ""])
@pytest.mark.parametrize("size", ["-1", "9" * 30, "9" * 5000, "x"])
def test_what_strangers_call_a_time(when: str, size: str) -> None:
    kept = Kept("e9dfe139", {"id": "0011aabbccdd", "name": "\x1b[2J", "time": when, "size": size})
    found = records.of_tags(kept, "/srv/backups")
    assert (found.time, found.size, found.name) == (0.0, 0, "")


def test_a_backup_is_found_as_it_was_tagged() -> None:
    backup = Backup("0011aabbccdd", "/srv", "0123456789ab", "db", 1764360000.25, 4096, "e9dfe139")
    found = records.of_tags(Kept("e9dfe139", records.tags(backup)), "/srv")
    assert found == replace(backup, complete=True)


def test_what_is_superfluous() -> None:
    def made(number: int, instance: str, *, complete: bool = True) -> Backup:
        return Backup(f"{number:012x}", "/srv", instance, "db", float(number), complete=complete)

    mine = [made(1, "a"), made(2, "a"), made(3, "a", complete=False)]
    going = superfluous([*mine, made(4, "b")], Keep(last=1))
    assert going == [mine[0]]
