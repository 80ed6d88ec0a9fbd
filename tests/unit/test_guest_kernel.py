"""What scripts/guest_kernel.py makes of a distribution's kernel package."""

from __future__ import annotations

import gzip
import lzma
import runpy
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/guest_kernel.py"
NAMES = ("virtio_ring", "virtio", "virtio_pci", "virtio_blk", "virtio_net", "virtio-console")
NAMES += ("virtio-rng", "squashfs", "pvpanic", "pvpanic-pci")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="guest_kernel")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A tree as newer distributions have it: packed modules, some of the wanted built in."""
    tree = tmp_path / "modules"
    tree.mkdir()
    for name in NAMES:
        (tree / f"{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
    needs = {
        "virtio": "virtio_ring.ko.xz",
        "virtio_pci": "virtio.ko.xz virtio_ring.ko.xz",
        "pvpanic-pci": "pvpanic.ko.xz",
    }
    lines = [f"{name}.ko.xz: {needs.get(name, '')}\n" for name in sorted(NAMES)]
    (tree / "modules.dep").write_text("".join(lines))
    (tree / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\n")
    return tree


def members(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and contents of an initramfs's members, by the kernel's buffer-format.rst."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, width = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + width - 1].decode()
        at += 110 + width + -(110 + width) % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[at : at + size])
        at += size + -size % 4


def test_modules_in_load_order(script: dict[str, Any], modules: Path, tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    script["copy_boot_modules"](modules, boot)
    order = [each.name[3:-3] for each in sorted(boot.iterdir())]
    assert order[:3] == ["virtio_ring", "virtio", "virtio_pci"]
    assert order.index("pvpanic") < order.index("pvpanic_pci")
    assert "overlay" not in order
    assert (boot / "00-virtio_ring.ko").read_bytes() == b"virtio_ring"


def test_kernel_without_a_wanted_module(
    script: dict[str, Any], modules: Path, tmp_path: Path
) -> None:
    (modules / "modules.builtin").write_text("")
    with pytest.raises(Exception, match="the kernel has no module overlay"):
        script["copy_boot_modules"](modules, tmp_path)


def test_initramfs(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "00-a.ko").write_bytes(b"module")
    archive = script["initramfs"](tmp_path, b"agent", b"tools!")
    found = members(archive)
    assert found["init"] == (stat.S_IFREG | 0o755, b"agent")
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"tools!")
    assert found["bin/modprobe"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["boot/00-a.ko"] == (stat.S_IFREG | 0o644, b"module")
    assert stat.S_ISCHR(found["dev/console"][0])
    assert archive == script["initramfs"](tmp_path, b"agent", b"tools!"), "not the same every time"


def big_image(payload: bytes) -> bytes:
    """A bzImage with nothing in it but what x86/boot.rst says of the payload."""
    head = bytearray(4 * 512)
    head[0x1F1] = 3
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload) + 4)
    return bytes(head) + bytes(16) + payload + struct.pack("<I", 0)


def test_kernel_is_unpacked(script: dict[str, Any], tmp_path: Path) -> None:
    elf = b"\x7fELF" + bytes(60) + struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(big_image(gzip.compress(elf)))
    for _ in range(2):
        script["unpack"](kernel)
        assert kernel.read_bytes() == elf


@pytest.mark.parametrize(
    "image",
    [
        big_image(gzip.compress(b"\x7fELF without the note")),
        big_image(b"packed by something unknown"),
        b"no kernel",
    ],
)
def test_kernel_that_cannot_be_unpacked_stays(
    script: dict[str, Any], tmp_path: Path, image: bytes
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(image)
    script["unpack"](kernel)
    assert kernel.read_bytes() == image
