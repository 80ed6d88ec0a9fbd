"""Which mounts lie below a directory, as the kernel lists them."""

from __future__ import annotations

from sublet.drivers.mount import points_below

LINES = [
    "1 0 0:1 / / rw - ext4 /dev/vda rw\n",
    "2 1 0:2 / /run/mnt rw shared:1 - tmpfs tmpfs rw\n",
    "3 2 0:3 / /run/mnt/abc/rootfs rw shared:2 - overlay overlay rw,upperdir=/srv/abc/upper\n",
    "4 3 0:4 / /run/mnt/abc/rootfs/a\\040b rw - tmpfs tmpfs rw\n",
    "5 2 0:5 / /run/mnt/abcd/rootfs rw - overlay overlay rw,lowerdir=/run/mnt/abc/lower\n",
    "6 1 0:6 / /srv/a\\040b rw - tmpfs tmpfs rw\n",
]


def test_the_innermost_and_latest_come_first() -> None:
    assert points_below("/run/mnt/abc", LINES) == [
        "/run/mnt/abc/rootfs/a b",
        "/run/mnt/abc/rootfs",
    ]
    assert points_below("/run/mnt", LINES)[-1] == "/run/mnt"
    assert len(points_below("/run/mnt", LINES)) == 4
    assert points_below("/run/mn", LINES) == []


def test_names_that_the_kernel_writes_otherwise() -> None:
    assert points_below("/srv/a b", LINES) == ["/srv/a b"]
