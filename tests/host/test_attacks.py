"""What a hostile tenant, image or client tries, and what becomes of it."""

from __future__ import annotations

from conftest import BASE, Sublet, eventually

DEEP = 'for (1..3000) { mkdir "d"; chdir "d" or die }; open F, ">", "/deep"; sleep 60'
"""A directory 3000 levels deep: deeper than Python's recursion."""


def test_directories_too_deep_for_python_are_removed(own: Sublet) -> None:
    own.ok("run", "-d", "--name", "deep", BASE, "perl", "-e", DEEP)
    eventually(lambda: own("exec", "deep", "test", "-e", "/deep").code == 0, "/deep")
    own.ok("run", "-d", "--name", "again", BASE, "perl", "-e", DEEP)
    eventually(lambda: own("exec", "again", "test", "-e", "/deep").code == 0, "/deep")
    own.ok("rm", "-f", "deep")
    own.kill_daemon()
    assert own.json("ps", "--json")[0]["name"] == "again"
    own.ok("rm", "-f", "again")
    assert list((own.root / "instances").iterdir()) == []
