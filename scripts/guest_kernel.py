"""The kernels that VMs boot, fetched from the distribution, each with an initramfs of ours.

    guest_kernel.py KERNELS AGENT

KERNELS/VERSION/ gets `vmlinuz` (unpacked, where it can be booted so: that is quicker, and leaves
no packed copies behind in memory that templates keep; its address is not random then),
`modules.squashfs` (what belongs at /lib/modules/VERSION), `boot/` (the modules that the initramfs
loads) and `initramfs` (AGENT as /init, busybox, and those); `sources` says what that was made of.

The package is unpacked, never installed: that would touch the host's own boot loader. Kernels
that are there already stay; their initramfs is made anew when AGENT changes.

Where none can be fetched, it says so, and what that means.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

META = ("linux-image-cloud-amd64", "linux-image-virtual")  # Debian's name, Ubuntu's name
BUSYBOX = Path("/bin/busybox")
WANTED = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng"),
    *("squashfs", "overlay", "pvpanic_pci"),
)
OPTIONAL = ("virtio_rng", "pvpanic_pci")  # Ubuntu's packages differ in where they keep these
TOOLS = ("modprobe", "insmod", "sh", "mount", "ip", "dmesg")  # what is of use in an emergency


class Unavailable(Exception):
    """No kernel can be fetched; the text says why."""


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def output(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise Unavailable(f"{' '.join(argv)}: {last[0]}")
    return done.stdout


def depends(package: str) -> list[str]:
    """The packages of kernels and modules that a package is made of."""
    lines = output("apt-cache", "depends", "--important", package).splitlines()
    names = (line.split()[-1] for line in lines if line.strip().startswith("Depends:"))
    return [name for name in names if re.match(r"linux-(image|modules)-", name)]


def newest() -> tuple[str, str]:
    """The newest kernel's version, and the package that holds it."""
    reason = "apt-cache is missing" if not shutil.which("apt-cache") else ""
    for meta in META if not reason else ():
        try:
            real = next(iter(depends(meta)), None)
        except Unavailable as error:
            reason = str(error)
            continue
        if real:
            version = re.sub(r"^linux-image-(unsigned-)?", "", real)
            return version, real
    raise Unavailable(reason or f"the package lists have none of {', '.join(META)}")


def listed(kernels: Path) -> tuple[str, str]:
    """As `newest`; a machine that has neither a kernel nor package lists gets the lists first."""
    try:
        return newest()
    except Unavailable:
        if any(kernels.iterdir()) or not shutil.which("apt-get"):
            raise
    output("apt-get", "-o", "DPkg::Lock::Timeout=600", "update")
    return newest()


def fetch(kernels: Path, version: str, package: str) -> None:
    """Download and unpack one kernel; the directory appears when it is whole but for the
    initramfs."""
    say(f"fetching the kernel of VMs, {version}")
    with tempfile.TemporaryDirectory(dir=kernels, prefix=".new-") as temporary:
        work = Path(temporary)
        names = [package, *(each for each in depends(package) if "modules" in each)]
        output("apt-get", "-o", "APT::Sandbox::User=root", "download", *names, cwd=work)
        for archive in work.glob("*.deb"):
            output("dpkg-deb", "--extract", str(archive), str(work / "tree"))
        tree = work / "tree"
        modules = next((each for each in tree.glob("**/lib/modules/*") if each.is_dir()), None)
        if modules is None:
            raise Unavailable(f"{' '.join(names)} hold no modules")
        root = modules.parents[2]
        output("depmod", "--basedir", str(root), modules.name)
        for link in (modules / "build", modules / "source"):
            link.unlink(missing_ok=True)
        made = work / "made"
        (made / "boot").mkdir(parents=True)
        shutil.copyfile(next(tree.glob("boot/vmlinuz-*")), made / "vmlinuz")
        unpack(made / "vmlinuz")
        copy_boot_modules(modules, made / "boot")
        squash = ("-comp", "zstd", "-all-root", "-no-progress", "-quiet", "-mkfs-time", "0")
        output("mksquashfs", str(modules), str(made / "modules.squashfs"), *squash)
        shutil.rmtree(kernels / version, ignore_errors=True)
        made.rename(kernels / version)


PACKERS = {
    b"\x1f\x8b": ("gzip", "-dcq"),
    b"\xfd7zXZ\0": ("xz", "-dcq", "--single-stream"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
    b"\x02\x21\x4c\x18": ("lz4", "-dcq"),
}


def bootable(image: bytes) -> bytes | None:
    """The ELF file in a bzImage (the kernel's x86/boot.rst, payload_offset), if QEMU can boot that:
    it says where to enter it, in the note XEN_ELFNOTE_PHYS32_ENTRY (QEMU's load_elfboot)."""
    if image[0x202:0x206] != b"HdrS":
        return None
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    packed = image[start : start + length - 4]  # its size when unpacked ends it
    argv = next((argv for magic, argv in PACKERS.items() if packed.startswith(magic)), None)
    if argv is None or not shutil.which(argv[0]):
        return None
    elf = subprocess.run(argv, input=packed, capture_output=True).stdout
    note = struct.pack("<II", 4, 4) + struct.pack("<I", 18) + b"Xen\0"
    wide = struct.pack("<II", 4, 8) + struct.pack("<I", 18) + b"Xen\0"
    return elf if elf.startswith(b"\x7fELF") and (note in elf or wide in elf) else None


def unpack(kernel: Path) -> None:
    with kernel.open("rb") as file:
        if file.read(4) == b"\x7fELF":
            return
    elf = bootable(kernel.read_bytes())
    if elf:
        replace(kernel, elf)


def replace(file: Path, data: bytes) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(data)
    os.replace(new, file)


def copy_boot_modules(modules: Path, target: Path) -> None:
    """The wanted modules and all that they need, uncompressed, as NN-NAME.ko in load order."""
    needs: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        paths[module_name(path)] = path
        needs[path] = rest.split()
    builtin = {module_name(line) for line in (modules / "modules.builtin").read_text().split()}
    order: list[str] = []
    for name in WANTED:
        if name in builtin or (name in OPTIONAL and name not in paths):
            continue
        if name not in paths:
            raise Unavailable(f"the kernel has no module {name}")
        for path in [*reversed(needs[paths[name]]), paths[name]]:  # modules.dep(5): deepest last
            if path not in order:
                order.append(path)
    for number, path in enumerate(order):
        data = unpacked(modules / path)
        (target / f"{number:02}-{module_name(path)}.ko").write_bytes(data)


def module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def unpacked(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    return path.read_bytes()


def entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One member of an initramfs (the kernel's buffer-format.rst, `newc`)."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def initramfs(boot: Path, agent: bytes, busybox: bytes) -> bytes:
    parts = [entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "boot", "dev", "proc", "sys")]
    parts.append(entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    parts.append(entry("init", stat.S_IFREG | 0o755, agent))
    parts.append(entry("bin/busybox", stat.S_IFREG | 0o755, busybox))
    parts += [entry(f"bin/{tool}", stat.S_IFLNK | 0o777, b"busybox") for tool in TOOLS]
    for module in sorted(boot.iterdir()):
        parts.append(entry(f"boot/{module.name}", stat.S_IFREG | 0o644, module.read_bytes()))
    return b"".join([*parts, entry("TRAILER!!!", 0)])


def build(kernel: Path, agent: bytes, busybox: bytes) -> None:
    """Make the kernel's initramfs, unless it is made of the same already."""
    image = initramfs(kernel / "boot", agent, busybox)
    sources, digest = kernel / "sources", hashlib.sha256(image).hexdigest() + "\n"
    if sources.exists() and sources.read_text() == digest and (kernel / "initramfs").exists():
        return
    say(f"building the initramfs of {kernel.name}")
    replace(kernel / "initramfs", image)
    sources.write_text(digest)


def main() -> int:
    kernels, agent = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
    kernels.mkdir(parents=True, exist_ok=True)
    try:
        version, package = listed(kernels)
        if not (kernels / version / "modules.squashfs").exists():
            fetch(kernels, version, package)
    except (Unavailable, OSError) as error:
        say(f"no newer kernel for VMs: {error}.")
    here = [each for each in sorted(kernels.iterdir()) if (each / "modules.squashfs").exists()]
    for kernel in here:
        unpack(kernel / "vmlinuz")
        build(kernel, agent, BUSYBOX.read_bytes())
    if not here:
        say("VMs are not available until a kernel can be fetched; run this again then.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
