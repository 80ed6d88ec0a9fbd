"""A real cloud disk image: Debian with systemd, cloud-init and sshd, on a GPT disk.

It is what a distribution gives out but for the kernel and the boot loader: VMs are booted with the
host's kernel for guests (direct kernel boot). No loop device is needed: mkfs.ext4 fills the file
system of a directory, and that goes into its partition by its offset.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

MIB = 1 << 20
ROOT_START, ROOT_SIZE = 16 * MIB, 1008 * MIB
DISK_SIZE = ROOT_START + ROOT_SIZE + MIB
"""The last MiB holds the second copy of the partition table."""

PACKAGES = "systemd-sysv,dbus,udev,cloud-init,cloud-guest-utils,fdisk,openssh-server,iproute2"
PATHS = ("usr/share/doc", "usr/share/man", "usr/share/locale")

CLOUD = """\
datasource_list: [NoCloud]
cloud_init_modules: [bootcmd, write-files, growpart, resizefs, set_hostname, users-groups, ssh]
cloud_config_modules: [set-passwords, runcmd]
cloud_final_modules: [scripts-user, final-message]
"""
"""Of cloud-init's fifty modules those that the tests see: each takes half a slow second."""

MASKED = (
    "systemd-networkd-wait-online.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-timesyncd.service",
    "systemd-pstore.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
)


def cloud_disk(directory: Path) -> Path:
    """Make the disk in `directory`, as qcow2. Takes a minute, most of it downloads."""
    tree, root, disk = directory / "tree", directory / "root.img", directory / "disk.raw"
    _tree(tree)
    _sparse(root, ROOT_SIZE)
    _call("mkfs.ext4", "-q", "-F", "-L", "cloudimg-rootfs", "-d", tree, root)
    shutil.rmtree(tree)
    _sparse(disk, DISK_SIZE)
    sectors = f"start={ROOT_START // 512}, size={ROOT_SIZE // 512}, type=linux"
    _call("sfdisk", "-q", disk, input=f"label: gpt\n{sectors}\n")
    _call(
        *("dd", f"if={root}", f"of={disk}", "bs=1M", f"seek={ROOT_START // MIB}"),
        *("conv=notrunc,sparse", "status=none"),
    )
    root.unlink()
    _call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, directory / "disk.qcow2")
    disk.unlink()
    return directory / "disk.qcow2"


def _tree(tree: Path) -> None:
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
    argv += [f"--dpkgopt=path-exclude=/{path}/*" for path in PATHS]
    _call(*argv, "bookworm", tree)
    (tree / "etc/fstab").write_text("LABEL=cloudimg-rootfs / ext4 defaults 0 1\n")
    (tree / "etc/cloud/cloud.cfg.d/99_test.cfg").write_text(CLOUD)
    (tree / "etc/machine-id").write_text("uninitialized\n")
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    units = tree / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    _call("systemctl", f"--root={tree}", "enable", "--quiet", "systemd-networkd.service")


def _sparse(file: Path, size: int) -> None:
    with file.open("wb") as made:
        made.truncate(size)


def _call(*argv: str | Path, input: str | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in argv], input=input, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{argv[0]}: {done.stderr[-2000:]}"
