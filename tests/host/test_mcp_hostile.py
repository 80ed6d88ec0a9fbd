"""The MCP server, and agents that ask for too much, for what cannot be, or that go in mid-call."""

from __future__ import annotations

import asyncio
from datetime import datetime

from agentlab import agent, call, refused
from conftest import BASE, Sublet, eventually


async def test_output_without_an_end(sublet: Sublet) -> None:
    async with agent(sublet) as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        done = await call(client, "exec", sandbox=box, command="head -c 100M /dev/zero; echo e >&2")
        assert (len(done["stdout"]), done["stderr"], done["truncated"]) == (65536, "e\n", True)
        done = await call(client, "exec", sandbox=box, command="yes", timeout=5)
        assert (len(done["stdout"]), done["timed_out"]) == (65536, True)
        done = await call(client, "exec", sandbox=box, command="printf '\\377\\000a'")
        assert done["stdout"] == "\ufffd\0a"
        for wrong in ({"timeout": -1}, {"timeout": 0}, {"cwd": "a\0b"}, {"env": {"a": "\0"}}):
            await refused(client, "exec", sandbox=box, **{"command": "true", **wrong})
        await refused(client, "exec", sandbox=box, command="a\0b")
        await refused(client, "exec", sandbox=box, command="#" * 200_000)
        assert (await call(client, "exec", sandbox=box, command="echo a"))["stdout"] == "a\n"


async def test_files_that_cannot_be(sublet: Sublet) -> None:
    async with agent(sublet) as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        for path in ("", "/a\0b", "/" + "n" * 5000):
            for tool, more in (
                ("read_file", {}),
                ("write_file", {"content": "x"}),
                ("list_files", {}),
            ):
                told = await refused(client, tool, sandbox=box, path=path, **more)
                assert "path" in told.lower(), told
        up = "../../../../../../../../etc/of-the-sandbox"
        written = await call(client, "write_file", sandbox=box, path=up, content="x" * 300_000)
        assert (written["path"], written["size"]) == (up, 300_000)
        done = await call(client, "exec", sandbox=box, command="wc -c </etc/of-the-sandbox")
        assert done["stdout"] == "300000\n"
        assert "more than 262144" in await refused(client, "read_file", sandbox=box, path=up)
        large = "x" * (17 << 20)
        assert "16 MiB" in await refused(
            client, "write_file", sandbox=box, path="/large", content=large
        )
        await call(
            client, "exec", sandbox=box, command="mkdir /many; cd /many; seq 3000 | xargs touch"
        )
        told = await refused(client, "list_files", sandbox=box, path="/many")
        assert "3000 names in /many" in told
        for path in ("/dev/zero", "/proc/kmsg", "/etc"):
            await refused(client, "read_file", sandbox=box, path=path)
        for wrong in ("", "..", "../../v1", "a\0b", "x" * 5000):
            told = await refused(client, "exec", sandbox=wrong, command="id")
            assert "There is no sandbox" in told


async def test_more_at_once_than_are_permitted(sublet: Sublet) -> None:
    """Those that find no room take none from the others."""
    async with agent(sublet, "--most", "3") as client:
        asked = [client.call_tool("create_sandbox", {"image": BASE}) for _ in range(12)]
        made = [each for each in await asyncio.gather(*asked) if not each.is_error]
        assert len(made) == 3
        assert len(await call(client, "list_sandboxes")) == 3
        box = (await call(client, "list_sandboxes"))[0]["sandbox"]
        await call(client, "destroy_sandbox", sandbox=box)
        await call(client, "create_sandbox", image=BASE)


async def test_a_life_has_an_end(sublet: Sublet) -> None:
    """However often it is extended; `expires` tells."""
    async with agent(sublet, "--ttl", "10m", "--max-ttl", "1h") as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        row = sublet.json("inspect", box)
        for ttl in ("30m", "1h", "1h"):
            told = await call(client, "extend_sandbox", sandbox=box, ttl=ttl)
        life = datetime.fromisoformat(told["expires"]) - datetime.fromisoformat(row["created"])
        assert 3599 <= life.total_seconds() <= 3601


async def test_gone_in_mid_call(sublet: Sublet) -> None:
    """With it goes what it was at, and none of another agent's, of which it sees nothing."""
    async with agent(sublet) as other:
        theirs = (await call(other, "create_sandbox", image=BASE))["sandbox"]
        async with agent(sublet) as client:
            assert await call(client, "list_sandboxes") == []
            assert "no sandbox" in await refused(client, "exec", sandbox=theirs, command="id")
            box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
            command = {"sandbox": box, "command": "touch /begun; sleep 1000", "timeout": 1000}
            running = asyncio.create_task(client.call_tool("exec", command))
            while not (await call(client, "exec", sandbox=box, command="ls /begun"))["stdout"]:
                assert not running.done()
        await asyncio.gather(running, return_exceptions=True)
        eventually(
            lambda: [row["id"] for row in sublet.json("ps", "-a", "--json")] == [theirs], "gone"
        )
        assert (await call(other, "exec", sandbox=theirs, command="echo a"))["stdout"] == "a\n"


async def test_a_command_that_is_taken_back(sublet: Sublet) -> None:
    """The client's word that it does not wait any more ends the command."""
    async with agent(sublet) as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        command = {"sandbox": box, "command": "echo $$ >/pid; exec sleep 1000", "timeout": 1000}
        running = asyncio.create_task(client.call_tool("exec", command))
        while not (await call(client, "exec", sandbox=box, command="cat /pid"))["stdout"]:
            assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        alive = {"sandbox": box, "command": "kill -0 $(cat /pid) && echo there"}
        for _ in range(600):
            if not (await call(client, "exec", **alive))["stdout"]:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the command goes on")
