"""The MCP server, as the official client sees it, over both transports."""

from __future__ import annotations

import base64
import os
import pty
import re
import signal
import urllib.error
import urllib.request

import httpx2
import pytest
from agentlab import agent, call, refused
from conftest import BASE, SUBLET, Sublet, eventually
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def test_an_agents_work(sublet: Sublet) -> None:
    async with agent(sublet) as client:
        made = await call(client, "create_sandbox", image=BASE, size="0.5x0.25", ttl="10m")
        box = made["sandbox"]
        assert (made["state"], made["size"]) == ("running", "0.5x0.25")

        text = "one\ntwo\n"
        await call(client, "write_file", sandbox=box, path="/work/a.txt", content=text)
        done = await call(
            client, "exec", sandbox=box, command="wc -l <a.txt; echo $X >&2; exit 3",
            cwd="/work", env={"X": "y"},
        )  # fmt: skip
        assert (done["exit_code"], done["stdout"], done["stderr"]) == (3, "2\n", "y\n")
        read = await call(client, "read_file", sandbox=box, path="/work/a.txt")
        assert (read["content"], read["encoding"], read["size"]) == (text, "utf-8", 8)
        rows = await call(client, "list_files", sandbox=box, path="/work")
        assert [(row["path"], row["type"]) for row in rows] == [("/work/a.txt", "file")]

        told = await call(client, "snapshot", sandbox=box)
        kept = told["snapshot"]
        assert told == {"sandbox": box, "snapshot": kept, "message": kept}
        await call(client, "exec", sandbox=box, command="rm -rf /work")
        (fork,) = await call(client, "fork", sandbox=box, snapshot=kept)
        await call(client, "rollback", sandbox=box, snapshot=kept)
        for each in (box, fork["sandbox"]):
            assert (await call(client, "read_file", sandbox=each, path="/work/a.txt")) == read

        await call(client, "destroy_sandbox", sandbox=fork["sandbox"])
        assert [row["sandbox"] for row in await call(client, "list_sandboxes")] == [box]
    eventually(lambda: sublet.json("ps", "-a", "--json") == [], "gone with the agent")


async def test_a_port(sublet: Sublet) -> None:
    server = (
        "perl -MSocket -e 'socket(S,PF_INET,SOCK_STREAM,0);bind(S,sockaddr_in(8000,INADDR_ANY));"
    )
    server += 'listen(S,9);while(accept(C,S)){sysread(C,$x,999);print C "HTTP/1.0 200 OK\\n\\nhere"'
    server += ";close C}'"
    async with agent(sublet) as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        await call(client, "exec", sandbox=box, command=f"setsid {server} >/dev/null 2>&1 &")
        told = await call(client, "expose_port", sandbox=box, port=8000)
        url = told["url"]
        assert told == {"sandbox": box, "port": 8000, "url": url, "message": url}
        (schema,) = [
            tool.output_schema
            for tool in (await client.list_tools()).tools
            if tool.name == "expose_port"
        ]
        assert schema is not None
        assert set(schema["required"]) == set(told)

        def answers() -> bool:
            try:
                return bool(urllib.request.urlopen(url, timeout=5).read() == b"here")
            except urllib.error.URLError:
                return False

        eventually(answers, "an answer of the server")


async def test_bytes_and_what_takes_too_long(sublet: Sublet) -> None:
    async with agent(sublet) as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        data = base64.b64encode(b"\xff\x00\xfe").decode()
        await call(
            client, "write_file", sandbox=box, path="/b", content=data, encoding="base64",
            executable=True,
        )  # fmt: skip
        read = await call(client, "read_file", sandbox=box, path="/b")
        assert (read["content"], read["encoding"]) == (data, "base64")
        late = await call(client, "exec", sandbox=box, command="echo a; sleep 99", timeout=4)
        assert (late["timed_out"], late["stdout"], late["exit_code"]) == (True, "a\n", 137)
        many = await call(client, "exec", sandbox=box, command="head -c 99999 /dev/zero")
        assert (len(many["stdout"]), many["truncated"]) == (65536, True)
        assert "not base64" in await refused(
            client, "write_file", sandbox=box, path="/b", content="*", encoding="base64"
        )


async def test_what_the_owner_does_not_permit(sublet: Sublet) -> None:
    limits = ["--most", "1", "--max-size", "1x0.5", "--max-ttl", "1h", "--network", "none"]
    limits += ["--only-image", BASE, "--only-image", "*/*"]
    sublet.ok("run", "-d", "--name", "mine", BASE, "sleep", "1000")
    async with agent(sublet, *limits) as client:
        for asked, told in (
            ({"size": "2x0.5"}, "Ask for 1x0.5"),
            ({"ttl": "2h"}, "time to live of 2h"),
            ({"network": ["internet"]}, "Ask for none"),
            ({"isolation": "jail"}, "no isolation 'jail'"),
            ({"image": "/etc/hostname"}, "not an image reference"),
            ({"image": "localhost:5000/a"}, "registry localhost:5000"),
            ({"image": "python:3.11"}, "python:3.11 is not permitted"),
        ):
            assert told in await refused(client, "create_sandbox", **{"image": BASE, **asked})
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        assert "1 sandboxes are permitted" in await refused(client, "create_sandbox", image=BASE)
        assert "1 sandboxes are permitted" in await refused(client, "fork", sandbox=box)
        assert "not permitted" in await refused(client, "extend_sandbox", sandbox=box, ttl="2h")
        for tool in ("exec", "read_file", "snapshot", "expose_port"):
            rest = {
                "exec": {"command": "id"},
                "read_file": {"path": "/"},
                "expose_port": {"port": 1},
            }
            told = await refused(client, tool, sandbox="mine", **rest.get(tool, {}))
            assert "There is no sandbox 'mine'" in told
        await call(client, "destroy_sandbox", sandbox="mine")
    assert sublet.json("inspect", "mine")["state"] == "running"


async def test_forks_of_what_is_not_the_agents(sublet: Sublet) -> None:
    """Neither another's instance nor its snapshot, nor by a name that one of the agent's has."""
    sublet.ok("run", "-d", "--name", "mine", BASE, "sleep", "1000")
    theirs = sublet.ok("snapshot", "mine", "--name", "kept")
    limits = ("--max-ttl", "1h", "--ttl", "1h", "--disk", "300m")
    async with agent(sublet, *limits) as client:
        box = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        for other in ("mine", "kept", theirs):
            assert "no snapshot" in await refused(client, "fork", sandbox=box, snapshot=other)
        assert "no number" in await refused(client, "fork", sandbox=box, count=-9)
        await call(client, "snapshot", sandbox=box, name="mine")
        await call(client, "extend_sandbox", sandbox=box, ttl="1h")
        (fork,) = await call(client, "fork", sandbox=box, snapshot="mine")
        assert sublet.json("inspect", fork["sandbox"])["labels"]["io.sublet.mcp"]
        for each in (box, fork["sandbox"]):
            command = "head -c 400M /dev/zero >/large"
            done = await call(client, "exec", sandbox=each, command=command)
            assert "No space left" in done["stderr"]
    eventually(lambda: len(sublet.json("ps", "-a", "--json")) == 1, "gone with the agent")


async def test_killed_with_its_client(sublet: Sublet) -> None:
    """What it made goes, too, and what it was told to keep stays until its time is over."""
    async with agent(sublet, "--keep", "--name", "mine") as client:
        kept = (await call(client, "create_sandbox", image=BASE))["sandbox"]
    async with agent(sublet, "--keep", "--name", "mine") as client:
        assert [row["sandbox"] for row in await call(client, "list_sandboxes")] == [kept]
    async with agent(sublet) as client:
        made = (await call(client, "create_sandbox", image=BASE))["sandbox"]
        assert sublet.json("inspect", made)["lease"]
        pid = next(
            int(entry)
            for entry in os.listdir("/proc")
            if entry.isdigit() and _is_server(int(entry), sublet)
        )
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(sublet.json("ps", "-a", "--json")) == 1, "gone")
    sublet.ok("rm", "-f", kept)


def _is_server(pid: int, sublet: Sublet) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        with open(f"/proc/{pid}/environ", "rb") as file:
            ours = os.fsencode(f"SUBLET_RUN={sublet.run_dir}") in file.read().split(b"\0")
    except OSError:
        return False
    return ours and b"mcp" in words


@pytest.mark.slow
async def test_python_and_the_network(sublet: Sublet) -> None:
    """In the catalogue's image: names stay, errors are told, and only what is listed is reached."""
    async with agent(sublet, "--image", "python:3.11", "--network", "none") as client:
        box = (await call(client, "create_sandbox"))["sandbox"]
        assert (await call(client, "run_python", sandbox=box, code="x = 6"))["value"] is None
        done = await call(client, "run_python", sandbox=box, code="print('hi')\nx * 7")
        assert (done["value"], done["stdout"], done["error"]) == ("42", "hi\n", None)
        done = await call(client, "run_python", sandbox=box, code="1 / 0")
        assert "ZeroDivisionError" in done["error"]
        code = "import socket; socket.create_connection(('198.51.100.1', 80), 5)"
        assert "Error" in (await call(client, "run_python", sandbox=box, code=code))["error"]
        late = await call(client, "run_python", sandbox=box, code="while 1: pass", timeout=0.5)
        assert late["error"]
        assert (await call(client, "run_python", sandbox=box, code="x"))["value"] == "6"


async def test_over_http(sublet: Sublet) -> None:
    process = sublet.spawn("mcp", "--http", "127.0.0.1:0")
    assert process.stderr is not None
    try:
        told = process.stderr.readline() + process.stderr.readline()
        url, token = re.search(r"http://\S+", told), re.search(r"Bearer (\S+)`", told)
        assert url is not None
        assert token is not None
        async with httpx2.AsyncClient(timeout=60) as http:
            for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Origin": "http://[::1]:9"}):
                assert (await http.post(url[0], json={}, headers=wrong)).status_code == 401
            for stranger in ("http://example.org", "http://localhost.example.org:80", "null", "x["):
                page = {"Origin": stranger, "Authorization": f"Bearer {token[1]}"}
                assert (await http.post(url[0], json={}, headers=page)).status_code == 403
        headers = {"Authorization": f"Bearer {token[1]}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            async with Client(streamable_http_client(url[0], http_client=http)) as client:
                made = await call(client, "create_sandbox", image=BASE, name="far")
            async with Client(streamable_http_client(url[0], http_client=http)) as client:
                done = await call(client, "exec", sandbox="far", command="echo hallo")
                assert done["stdout"] == "hallo\n"
                await call(client, "destroy_sandbox", sandbox=made["sandbox"])
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_control_c_ends_it_on_a_terminal(sublet: Sublet) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execve(SUBLET, [SUBLET, "mcp"], sublet.env)
    os.write(master, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    told = b""
    while b'"result"' not in told:
        told += os.read(master, 4096)
    assert b"sublet mcp --config" in told
    os.write(master, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert os.WTERMSIG(status) == signal.SIGINT


def test_its_options(sublet: Sublet) -> None:
    found = sublet.json("mcp", "--network", "none", "--config")
    (server,) = found["mcpServers"].values()
    assert (server["command"], server["args"]) == ("sublet", ["mcp", "--network", "none"])
    for wrong, told in (
        (("--size", "4x8"), "more than is permitted"),
        (("--most", "0"), "none"),
        (("--http", "nowhere"), "Write --http 127.0.0.1:8765"),
        (("--network", "none,a.org"), "stands alone"),
    ):
        outcome = sublet("mcp", *wrong)
        assert outcome.code != 0
        assert told in outcome.err
