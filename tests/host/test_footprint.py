"""What instances take of the host: memory and disk, theirs alone and shared."""

from __future__ import annotations

from conftest import BASE, Sublet, eventually

from sublet.sdk import Client

MIB = 1 << 20


def test_memory_and_disk_of_a_container(sublet: Sublet) -> None:
    client = Client(str(sublet.run_dir / "sublet.sock"))
    script = "head -c 8388608 /dev/urandom >/written; perl -e '$a = \"x\" x 33554432; sleep 600'"
    busy = client.run(BASE, ["sh", "-c", script], volumes=["/data"], memory="128m")
    idle = client.run(BASE, ["sleep", "600"], memory="128m")
    eventually(lambda: client.footprint(busy.id)["memory"] > 32 * MIB, "its memory is used")
    large, small = client.footprint(busy.id), client.footprint(idle.id)
    assert 32 * MIB < large["memory"] < 80 * MIB  # perl's string, and what it was copied from
    assert 0 < small["memory"] < 4 * MIB
    assert large["processes"] == 3  # the shell, perl, the supervisor
    assert 8 * MIB <= large["disk"] < 10 * MIB
    assert small["disk"] < MIB
    assert large["shared_disk"] == small["shared_disk"]  # one image, once
    (image,) = large["shared_disk"].values()
    assert image >= sublet.json("image", "inspect", BASE)["squashfs"]["length"]
    busy.exec(["sh", "-c", "head -c 4194304 /dev/urandom >/data/file; sync"])
    assert client.footprint(busy.id)["disk"] >= 12 * MIB  # a volume without a name is its own


def test_what_does_not_run_takes_no_memory(sublet: Sublet) -> None:
    client = Client(str(sublet.run_dir / "sublet.sock"))
    made = client.create(BASE, ["true"])
    assert client.footprint(made.id)["memory"] == 0
    assert client.footprint(made.id)["processes"] == 0
    host = client.host()
    assert 0 < host["disk"]["free"] <= host["disk"]["size"]
