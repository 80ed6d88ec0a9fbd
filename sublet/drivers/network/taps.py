"""Taps: cables whose other end is a descriptor, which a virtual machine holds. All calls block.

A tap lives as long as somebody has it open: it goes with its machine, as a veth goes with its
namespace. Source: Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from sublet.drivers.network import cables
from sublet.drivers.network.cables import Cable

_TUNSETIFF = 0x400454CA
_TAP, _NO_INFORMATION, _VNET_HEADER, _EXCLUSIVE = 0x0002, 0x1000, 0x4000, 0x8000
_FLAGS = _TAP | _NO_INFORMATION | _VNET_HEADER | _EXCLUSIVE
"""Frames with the header of virtio-net, so that the guest may leave checksums to the host."""


def plug(cable: Cable) -> int:
    """The cable is in its bridge; a descriptor of its other end, for the caller to close.

    One of that name that is there already is replaced.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            _name(fd, cable.name)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL):  # a tap's, a veth's
                raise
            cables.delete(cable.segment.group, [cable.name])
            _name(fd, cable.name)
        cables.replug(cable)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _name(fd: int, name: str) -> None:
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", name.encode(), _FLAGS))
