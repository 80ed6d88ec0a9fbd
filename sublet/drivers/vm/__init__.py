"""Virtual machines: QEMU, its memory images, the guest's kernel and its channel."""
