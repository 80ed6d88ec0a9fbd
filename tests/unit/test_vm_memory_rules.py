"""Shapes, kernels, disks, memory images and templates: everything but a machine that runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from sublet.domain.config import Config
from sublet.domain.errors import (
    CorruptDisk,
    DiskFull,
    InvalidArgument,
    MemoryUnusable,
    ToolMissing,
)
from sublet.domain.size import MINIMUM_DISK
from sublet.domain.units import GIB, MIB
from sublet.drivers import run
from sublet.drivers.pool import Pool
from sublet.drivers.vm import disks, kernels, shelf, superblock, templates
from sublet.drivers.vm.kept import KeptKernels
from sublet.drivers.vm.kernels import Kernel
from sublet.drivers.vm.memory import PARTIAL, MemoryImage
from sublet.drivers.vm.saving import Saving, copy
from sublet.drivers.vm.shape import Platform, Shape, differences
from sublet.drivers.vm.templates import Templates

PLATFORM = Platform("7.2.22", "tcg", "6.1.0-56-cloud-amd64-0011")
SHAPE = Shape(PLATFORM, "sha256:ab", 8 * MIB, 1, 16 * GIB)
DEVICES = b"QEVM" + bytes(range(256))


class TestShape:
    def test_the_key_changes_with_every_part(self) -> None:
        others = [
            dataclasses.replace(SHAPE, **{name: value})
            for name, value in {
                "platform": dataclasses.replace(PLATFORM, qemu="8.0"),
                "image": "sha256:cd",
                "memory": 16 * MIB,
                "vcpus": 2,
                "disk": GIB,
                "nics": 2,
                "volumes": ((GIB, True),),
            }.items()
        ]
        assert len({shape.key for shape in [SHAPE, *others]}) == len(others) + 1
        assert dataclasses.replace(SHAPE).key == SHAPE.key

    def test_differences_have_names(self) -> None:
        other = dataclasses.replace(SHAPE, vcpus=2, platform=dataclasses.replace(PLATFORM, qemu=""))
        assert differences(SHAPE.text, other.text) == ["vcpus", "qemu"]
        assert differences("no json", SHAPE.text) == ["everything"]


class TestKernels:
    def make(self, directory: Path, *versions: str) -> None:
        for version in versions:
            place = directory / version
            place.mkdir()
            for name in ("vmlinuz", "initramfs", "modules.squashfs"):
                (place / name).write_text(f"{name} of {version}")

    def test_the_newest_as_people_count(self, tmp_path: Path) -> None:
        self.make(tmp_path, "6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "5.10.0-99-cloud-amd64")
        assert kernels.newest(tmp_path).version == "6.1.0-56-cloud-amd64"
        kernels.newest(tmp_path).initramfs.unlink()  # a setup that was interrupted
        assert kernels.newest(tmp_path).version == "6.1.0-9-cloud-amd64"

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(ToolMissing, match="no kernel") as caught:
            kernels.newest(tmp_path / "nowhere")
        assert "make setup" in caught.value.hint

    def test_the_identity_follows_the_files(self, tmp_path: Path) -> None:
        self.make(tmp_path, "6.1")
        kernel = kernels.newest(tmp_path)
        before = kernel.identity
        assert before == kernel.identity
        assert before.startswith("6.1-")
        kernel.initramfs.write_text("another agent")
        assert kernel.identity != before


class TestKeptKernels:
    @pytest.fixture
    def made(self, tmp_path: Path) -> KeptKernels:
        return KeptKernels(Config(root=tmp_path, run=tmp_path / "run"), Pool(tmp_path, tmp_path))

    @pytest.fixture
    def kernel(self, tmp_path: Path) -> Kernel:
        (tmp_path / "installed").mkdir()
        TestKernels().make(tmp_path / "installed", "6.1")
        return kernels.newest(tmp_path / "installed")

    async def test_it_stays_as_it_was(self, made: KeptKernels, kernel: Kernel) -> None:
        kept, identity = await made.keep(kernel), kernel.identity
        assert kept.directory == made.directory / identity
        assert stat.S_IMODE(kept.initramfs.stat().st_mode) == 0o444
        kernel.initramfs.write_text("another agent")
        assert await made.find(identity) == kept == Kernel("6.1", made.directory / identity)
        shutil.rmtree(kernel.directory)
        assert (await made.find(identity) or kernel).initramfs.read_text() == "initramfs of 6.1"
        for nonsense in ("", "..", "6.1-0123456789abcdef", "../installed/6.1", f"{identity}/"):
            assert await made.find(nonsense) is None

    async def test_one_that_was_damaged_is_made_anew(
        self, made: KeptKernels, kernel: Kernel
    ) -> None:
        kept = await made.keep(kernel)
        kept.vmlinuz.chmod(0o600)
        kept.vmlinuz.write_text("shorter")
        assert await made.find(kernel.identity) is None
        assert (await made.keep(kernel)).vmlinuz.read_text() == "vmlinuz of 6.1"
        assert made.half_made() == []

    async def test_what_cannot_be_kept_is_booted_all_the_same(
        self, made: KeptKernels, kernel: Kernel
    ) -> None:
        made.directory.write_text("no directory")
        assert await made.keep(kernel) == kernel

    async def test_what_nothing_names_goes(
        self, made: KeptKernels, kernel: Kernel, tmp_path: Path
    ) -> None:
        named = {}
        for number, place in enumerate(
            ("run/instances/a", "templates/k", "snapshots/s/memory-image")
        ):
            kernel.initramfs.write_text(f"agent {number}")
            await made.keep(kernel)
            text = dataclasses.replace(
                SHAPE, platform=dataclasses.replace(PLATFORM, kernel=kernel.identity)
            ).text
            (tmp_path / place).mkdir(parents=True)
            described = {"shape": text, "memory": 1, "devices": 1, "digest": ""}
            whole = text if number == 0 else json.dumps(described)
            (tmp_path / place / "shape").write_text(whole)
            named[kernel.identity] = tmp_path / place
        (made.directory / "6.1-0.partial").mkdir()
        assert [file.name for file in made.half_made()] == ["6.1-0.partial"]
        for identity, place in named.items():
            await made.collect()
            assert identity in os.listdir(made.directory)
            shutil.rmtree(place)
            await made.collect()
            assert identity not in os.listdir(made.directory)
        assert os.listdir(made.directory) == []


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path, tmp_path / "mnt")


class TestDisks:
    async def test_a_disk_is_sound_and_has_its_directories(self, pool: Pool) -> None:
        made = disks.Disks(pool)
        one, other = [await made.create(name, 64 * MIB) for name in ("i-1", "i-2")]
        for file in (one, other):
            disks.check(file)
            assert file.stat().st_blocks * 512 < 8 * MIB
            await run.run(["e2fsck", "-fn", str(file)])
        listed = await run.run(["debugfs", "-R", "ls -p /", str(one)])
        assert b"/040755/0/0/upper/" in listed.stdout
        assert b"/040755/0/0/work/" in listed.stdout

    async def test_each_has_an_identity_of_its_own(self, pool: Pool) -> None:
        made = disks.Disks(pool)
        heads = []
        for name in ("i-1", "i-2"):
            block = (await made.create(name, 64 * MIB)).read_bytes()[1024:2048]
            heads.append((block[0x68:0x78], block[0xEC:0xFC]))
        assert len({uuid for uuid, _ in heads}) == len({seed for _, seed in heads}) == 2

    async def test_one_that_is_there_stays(self, pool: Pool) -> None:
        made = disks.Disks(pool)
        file = await made.create("i-1", 64 * MIB)
        before = file.read_bytes()
        assert (await made.create("i-1", 128 * MIB)).read_bytes() == before

    async def test_blanks_are_bounded(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disks, "BLANKS", 2)
        made = disks.Disks(pool)
        for number in range(4):
            await made.create(f"i-{number}", (64 + number) * MIB)
        names = {file.name for file in (pool.directory / "blanks").iterdir()}
        assert names == {f"{66 * MIB}-upper.img", f"{67 * MIB}-upper.img"}

    async def test_a_volume(self, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = Path("/dev/shm") / tmp_path_factory.mktemp("volume").name
        made = disks.Disks(pool)
        try:
            for file in (pool.directory / "volumes/v-1/disk.img", elsewhere / "disk.img"):
                await made.volume(file, 64 * MIB)
                disks.check(file)
                listed = await run.run(["debugfs", "-R", "ls -p /", str(file)])
                assert b"/040755/0/0/data/" in listed.stdout
                assert file.parent.stat().st_mode & 0o777 == 0o700
        finally:
            shutil.rmtree(elsewhere)

    async def test_too_small(self, pool: Pool) -> None:
        with pytest.raises(InvalidArgument, match="too small"):
            await disks.Disks(pool).create("i-1", MIB)
        disks.check(await disks.Disks(pool).create("i-1", MINIMUM_DISK))

    async def test_damage_is_noticed(self, pool: Pool) -> None:
        file = await disks.Disks(pool).create("i-1", 64 * MIB)
        os.truncate(file, 60 * MIB)
        with pytest.raises(CorruptDisk, match=r"truncated.*64.0 MiB.*60.0 MiB"):
            disks.check(file)
        os.truncate(file, 64 * MIB)
        with file.open("r+b") as opened:
            opened.seek(1024)
            opened.write(bytes(1024))
        with pytest.raises(CorruptDisk, match="no ext4"):
            disks.check(file)
        file.write_bytes(b"")
        with pytest.raises(CorruptDisk, match="no ext4"):
            disks.check(file)
        file.unlink()
        with pytest.raises(CorruptDisk, match="gone"):
            disks.check(file)

    async def test_a_link_is_not_followed(self, pool: Pool) -> None:
        file = await disks.Disks(pool).create("i-1", 64 * MIB)
        link = file.with_name("link")
        link.symlink_to(file)
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            disks.check(link)

    async def test_growing(self, pool: Pool) -> None:
        file = await disks.Disks(pool).create("i-1", 64 * MIB)
        with pytest.raises(InvalidArgument, match="smaller"):
            disks.grow(file, 32 * MIB)
        disks.grow(file, 96 * MIB)
        disks.check(file)
        assert file.stat().st_size == 96 * MIB

    def test_the_checksum(self) -> None:
        """The check value of CRC-32C is e3069283, inverted at the end (RFC 3720, B.4)."""
        assert superblock.crc32c(b"123456789") == 0xE3069283 ^ 0xFFFFFFFF


async def save(target: Path, content: bytes = b"kernel", shape: Shape = SHAPE) -> MemoryImage:
    """A memory image without a machine."""
    making = await Saving.begin(target, shape.text, shape.memory, None)
    fill(making, content)
    return await making.commit()


def fill(making: Saving, content: bytes = b"kernel") -> None:
    os.write(making.devices, DEVICES)
    with (making.target.with_name(making.target.name + PARTIAL) / "memory").open("r+b") as f:
        f.seek(2 * MIB)
        f.write(content)


class TestMemory:
    async def test_saved_and_read_back(self, tmp_path: Path) -> None:
        image = await save(tmp_path / "image")
        image.check(SHAPE.text)
        assert image.memory.stat().st_size == 8 * MIB
        assert image.stored < MIB
        assert os.listdir(tmp_path) == ["image"]

    async def test_a_new_one_takes_the_place_of_an_old_one(self, tmp_path: Path) -> None:
        await save(tmp_path / "image", b"old")
        image = await save(tmp_path / "image", b"new")
        assert image.memory.read_bytes()[2 * MIB :][:3] == b"new"
        assert os.listdir(tmp_path) == ["image"]

    async def test_the_old_one_stays_when_the_disk_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await save(tmp_path / "image", b"old")

        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DiskFull, match="memory of the VM"):
                await save(tmp_path / "image", b"new")
        image = MemoryImage(tmp_path / "image")
        image.check(SHAPE.text)
        assert image.memory.read_bytes()[2 * MIB :][:3] == b"old"
        assert os.listdir(tmp_path) == ["image"]

    async def test_over_a_base(self, tmp_path: Path) -> None:
        base = await save(tmp_path / "base", b"booted")
        making = await Saving.begin(tmp_path / "image", SHAPE.text, SHAPE.memory, base.memory)
        os.write(making.devices, DEVICES)
        image = await making.commit()
        assert image.memory.read_bytes() == base.memory.read_bytes()

    async def test_copied(self, tmp_path: Path) -> None:
        image = await save(tmp_path / "image")
        copied = await copy(image, tmp_path / "another" / "image")
        copied.check(SHAPE.text)
        assert copied.memory.read_bytes() == image.memory.read_bytes()
        image.devices.unlink()
        with pytest.raises(FileNotFoundError):
            await copy(image, tmp_path / "third")
        assert sorted(os.listdir(tmp_path)) == ["another", "image"]

    async def test_qemu_wrote_nothing(self, tmp_path: Path) -> None:
        making = await Saving.begin(tmp_path / "image", SHAPE.text, SHAPE.memory, None)
        with pytest.raises(MemoryUnusable, match="no state"):
            await making.commit()
        assert os.listdir(tmp_path) == []

    async def test_given_up(self, tmp_path: Path) -> None:
        making = await Saving.begin(tmp_path / "image", SHAPE.text, SHAPE.memory, None)
        await making.discard()
        await making.discard()
        assert os.listdir(tmp_path) == []

    async def test_damage_is_noticed(self, tmp_path: Path) -> None:
        image = await save(tmp_path / "image")
        with pytest.raises(MemoryUnusable, match="different: memory, vcpus"):
            image.check(dataclasses.replace(SHAPE, memory=MIB, vcpus=4).text)
        os.truncate(image.memory, MIB)
        with pytest.raises(MemoryUnusable, match=r"memory has 1048576 of 8388608 bytes"):
            image.check(SHAPE.text)
        image.memory.unlink()
        with pytest.raises(MemoryUnusable, match="memory is missing"):
            image.check(SHAPE.text)
        (image.directory / "shape").write_text("{}")
        with pytest.raises(MemoryUnusable, match="damaged"):
            image.check(SHAPE.text)
        with pytest.raises(MemoryUnusable, match="no saved memory"):
            MemoryImage(tmp_path / "nowhere").check(SHAPE.text)

    async def test_devices_are_what_they_were(self, tmp_path: Path) -> None:
        image = await save(tmp_path / "image")
        image.devices.write_bytes(bytes(len(DEVICES)))
        with pytest.raises(MemoryUnusable, match="devices has changed"):
            image.check(SHAPE.text)

    async def test_the_seal_holds(self, tmp_path: Path) -> None:
        image = await save(tmp_path / "image")
        sealed = image.seal()
        source = image.share(sealed)
        os.close(sealed)
        try:
            assert os.pread(source.memory, 6, 2 * MIB) == b"kernel"
            assert os.fstat(source.memory).st_blocks * 512 < MIB  # holes stay holes
            again = os.open(f"/proc/self/fd/{source.memory}", os.O_RDWR)  # as QEMU does
            for change in (lambda: os.pwrite(again, b"x", 0), lambda: os.ftruncate(again, 0)):
                with pytest.raises(PermissionError):
                    change()
            os.close(again)
            assert source.inode == os.fstat(source.memory).st_ino
        finally:
            source.close()


def sealed() -> list[str]:
    """The memory of templates that this process has."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in found if "sublet-template" in name]


class TestTemplates:
    @pytest.fixture
    def made(self, pool: Pool) -> Iterator[Templates]:
        self.tasks: list[asyncio.Task[None]] = []
        made = Templates(pool, GIB, self.background)
        yield made
        made.close()
        assert sealed() == []

    def background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work, name=name))

    async def make(self, made: Templates, shape: Shape = SHAPE, content: bytes = b"k") -> None:
        async with made.turn(shape) as turn:
            assert turn.source is None
            assert turn.makes
            fill(await turn.begin(None), content)
            turn.keep()
        await asyncio.gather(*self.tasks)

    async def test_the_second_start_resumes(self, made: Templates) -> None:
        await self.make(made)
        async with made.turn(SHAPE) as turn:
            assert turn.source
            assert not turn.makes
            assert os.pread(turn.source.memory, 1, 2 * MIB) == b"k"
            assert turn.source.base.stat().st_size == SHAPE.memory
        made.close()

    async def test_starts_at_once_boot_one(self, made: Templates) -> None:
        boots = 0

        async def start() -> None:
            nonlocal boots
            async with made.turn(SHAPE) as turn:
                if turn.makes:
                    boots += 1
                    await asyncio.sleep(0.05)
                    fill(await turn.begin(None))
                    turn.keep()
                else:
                    assert turn.source

        await asyncio.gather(*(start() for _ in range(8)))
        assert boots == 1
        made.close()

    async def test_one_that_fails_does_not_make_the_others_queue(self, made: Templates) -> None:
        async def start() -> bool:
            async with made.turn(SHAPE) as turn:
                await asyncio.sleep(0.1)
                return turn.makes

        began = time.monotonic()
        assert sorted(await asyncio.gather(*(start() for _ in range(8)))) == [False] * 7 + [True]
        assert time.monotonic() - began < 0.5
        async with made.turn(SHAPE) as turn:
            assert not turn.makes  # not at once again

    async def test_another_daemon_finds_it(self, made: Templates, pool: Pool) -> None:
        await self.make(made)
        made.close()
        other = Templates(pool, GIB, self.background)
        async with other.turn(SHAPE) as turn:
            assert turn.source
        other.close()

    async def test_a_damaged_one_is_dropped(self, made: Templates) -> None:
        await self.make(made)
        os.truncate(made.directory / SHAPE.key / "memory", MIB)
        async with made.turn(SHAPE) as turn:
            assert turn.source is None
        assert os.listdir(made.directory) == []

    async def test_one_that_does_not_start_is_rejected(self, made: Templates) -> None:
        await self.make(made)
        async with made.turn(SHAPE) as turn:
            await turn.reject()
        assert os.listdir(made.directory) == []

    async def test_the_least_recently_used_go(
        self, made: Templates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shelf, "COUNT", 2)
        shapes = [dataclasses.replace(SHAPE, vcpus=count) for count in (1, 2, 3)]
        for shape in shapes[:2]:
            await self.make(made, shape)
        for age, shape in ((100, shapes[0]), (50, shapes[1])):
            past = time.time() - age
            os.utime(made.directory / shape.key, (past, past))
        async with made.turn(shapes[0]):
            await self.make(made, shapes[2])
        assert set(os.listdir(made.directory)) == {shapes[0].key, shapes[2].key}
        made.close()

    async def test_bytes_are_bounded(self, made: Templates) -> None:
        made.limit = 3 * MIB
        shapes = [dataclasses.replace(SHAPE, vcpus=count) for count in (1, 2)]
        for shape in shapes:
            await self.make(made, shape, os.urandom(2 * MIB))
        assert os.listdir(made.directory) == [shapes[1].key]
        made.close()

    async def test_another_platform_makes_them_stale(self, made: Templates) -> None:
        await self.make(made)
        (made.directory / "0123.partial").mkdir()
        async with made.turn(SHAPE):
            await made.collect(dataclasses.replace(PLATFORM, qemu="8.0"))
            assert os.listdir(made.directory) == [SHAPE.key]  # not while in use
        await made.collect(PLATFORM)
        assert os.listdir(made.directory) == [SHAPE.key]
        await made.collect(dataclasses.replace(PLATFORM, kernel="6.12"))
        assert os.listdir(made.directory) == []

    async def test_they_go_with_their_image(self, made: Templates) -> None:
        await self.make(made)
        await made.remove_image("sha256:another")
        assert os.listdir(made.directory) == [SHAPE.key]
        async with made.turn(SHAPE):
            await made.remove_image(SHAPE.image)
            assert os.listdir(made.directory) == [SHAPE.key]
        assert os.listdir(made.directory) == []

    async def test_one_that_is_being_made_goes_with_its_image_too(self, made: Templates) -> None:
        async with made.turn(SHAPE) as turn:
            fill(await turn.begin(None))
            turn.keep()
        await made.remove_image(SHAPE.image)
        await asyncio.gather(*self.tasks)
        assert os.listdir(made.directory) == []
        await self.make(made)  # the image has come back
        assert os.listdir(made.directory) == [SHAPE.key]

    async def test_memory_is_given_back(
        self, made: Templates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.make(made)
        assert made._entry(SHAPE.key).loaded > 0
        made.unload()
        assert made._entry(SHAPE.key).loaded > 0
        monkeypatch.setattr(templates, "IDLE", -1.0)
        made.unload()
        assert made._entry(SHAPE.key).loaded == 0

    async def test_a_start_that_is_called_off_keeps_no_memory(self, made: Templates) -> None:
        await self.make(made)
        made.close()

        async def start() -> None:
            async with made.turn(SHAPE):
                await asyncio.sleep(60)

        starting = asyncio.create_task(start())
        await asyncio.sleep(0)  # a thread loads it now
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert sealed() == []

    async def test_none_are_wanted(self, made: Templates) -> None:
        made.limit = 0
        async with made.turn(SHAPE) as turn:
            assert (turn.source, turn.makes) == (None, False)

    async def test_what_was_not_finished_is_a_leftover(self, pool: Pool) -> None:
        instances = ("i-1/memory-image.partial", "i-2/memory-image", "i-3/disk.img.partial")
        for place in (
            "templates/k1.partial",
            "templates/k2",
            *(f"instances/{i}" for i in instances),
        ):
            (pool.directory / place).mkdir(parents=True)
        found = shelf.leftovers(pool, set(), set())
        assert [(Path(x.name).name, x.owner) for x in found] == [
            ("k1.partial", ""),
            ("memory-image.partial", "i-1"),
            ("memory-image", "i-2"),
            ("disk.img.partial", "i-3"),
        ]
        assert [x.owner for x in shelf.leftovers(pool, {"k1"}, {"i-1", "i-2"})] == ["i-3"]
