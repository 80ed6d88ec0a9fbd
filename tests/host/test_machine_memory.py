"""The private pages of a machine's memory, copied out of QEMU's process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from machinelab import PROGRAM


def test_memory_that_is_its_own_is_copied(tmp_path: Path) -> None:
    """A process that maps a file as QEMU does, and writes to some of it."""
    base = tmp_path / "base"
    base.write_bytes(os.urandom(4 << 20))
    script = f"""
import mmap, os, sys
fd = os.open({str(base)!r}, os.O_RDWR)
m = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
m[5 * 4096] = m[5 * 4096] ^ 255
m[10 * 4096 : 300 * 4096] = os.urandom(290 * 4096)
m[400 * 4096 : 500 * 4096] = bytes(100 * 4096)
m[1023 * 4096 :] = b"e" * 4096
m[600 * 4096]
os.write(1, b"!" + bytes(m))
sys.stdin.read()
"""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        wanted = process.stdout.read(1 + (4 << 20))[1:]
        output = tmp_path / "output"
        output.write_bytes(base.read_bytes())
        inode = str(base.stat().st_ino)
        done = memory_of(process.pid, inode, output)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) == (1 + 290 + 1) * 4096
        assert output.read_bytes() == wanted
        assert output.stat().st_blocks * 512 <= (4 << 20) - 100 * 4096 + 65536, "no holes"
        output.write_bytes(b"")
        wrong = memory_of(process.pid, inode, output)
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "maps no file of inode" in wrong.stderr
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
    gone = memory_of(process.pid, inode, output)
    assert gone.returncode == 1
    assert "there is no process" in gone.stderr


def memory_of(pid: int, inode: str, output: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(PROGRAM), "memory", str(pid), inode, str(output)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
