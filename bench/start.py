"""How long a command takes in a new container: start, run, delete.

Twice: `true`, and a command that uses the container's network, so that nothing can be put off
until it is needed. Sublet and the engines give each container a network and limits; the bare
runtimes get Sublet's configuration, an empty network, and runc the limits.
"""

from __future__ import annotations

from bench.engines import IMAGE, NAME, Engine
from bench.host import program
from bench.lab import Lab
from bench.measure import Findings, Peer, measure, ratio, rows

SERVER = (
    "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);"
    "bind(S, sockaddr_in(7, INADDR_ANY)) or die; listen(S, 128);"
    'while (accept(C, S)) { syswrite(C, "hello\\n"); close C }'
)
"""Says hello to everyone who connects to port 7."""

READER = "exec 3<>/dev/tcp/{}/7; read -r line <&3; [ $line = hello ]"


def run(lab: Lab) -> Findings:
    """Both commands, all peers in turn."""
    _ = lab.sublet
    plain = measure(_plain(lab), lab.rounds)
    with lab.client.run(IMAGE, ["perl", "-e", SERVER]) as server:
        networked = measure(_networked(lab, server.address()), lab.rounds)
    timings = plain | networked
    aims = ratio(
        "run true, SDK: times docker run --rm", plain, "docker", "sublet SDK", 10, most=False
    )
    aims += ratio("run true, SDK: times bare crun", plain, "sublet SDK", "crun", 3, most=True)
    aims += ratio(
        "run true, CLI: times docker run --rm", plain, "docker", "sublet CLI", 4, most=False
    )
    aims += ratio(
        "run with network, SDK: times docker run --rm",
        networked,
        "docker, uses network",
        "sublet SDK, uses network",
        10,
        most=False,
    )
    return Findings(rows("start", timings), aims)


def _plain(lab: Lab) -> dict[str, Peer]:
    found = {
        "sublet SDK": _sdk(lab, ["true"]),
        "sublet CLI": program(*lab.sublet.argv, "run", "--rm", IMAGE, "true", env=lab.sublet.env),
    }
    for name in lab.has("docker", "podman"):
        found[name] = _engine(getattr(lab, name), ["true"])
    for name in lab.has("crun", "runc"):
        found[name] = _bare(lab, name)
    return found


def _bare(lab: Lab, name: str) -> Peer:
    lab.bundle.command("true")
    engine: Engine = getattr(lab, name)
    argv = (*engine.argv, "run", f"--bundle={lab.bundle.folder}", f"bench-{name}")
    return program(*argv, inside=engine.inside)


def _networked(lab: Lab, server: str) -> dict[str, Peer]:
    """A client for each engine; a container of the same engine serves it, ours at `server`."""
    command = ["bash", "-c", READER.format(server)]
    found = {
        "sublet SDK, uses network": _sdk(lab, command),
        "sublet CLI, uses network": program(
            *lab.sublet.argv, "run", "--rm", IMAGE, *command, env=lab.sublet.env
        ),
    }
    for name in lab.has("docker", "podman"):
        engine: Engine = getattr(lab, name)
        identity = engine(*engine.run, "-d", NAME, "perl", "-e", SERVER).strip()
        template = "{{.NetworkSettings.IPAddress}}"
        address = engine("inspect", "--format", template, identity).strip()
        command = ["bash", "-c", READER.format(address)]
        found[f"{name}, uses network"] = _engine(engine, command)
    return found


def _sdk(lab: Lab, command: list[str]) -> Peer:
    """A foreground run through the SDK, in this process, the instance removed at its end."""
    client = lab.client

    def once() -> None:
        result = client.output(IMAGE, command)
        if result.exit_code != 0:
            raise RuntimeError(f"{command} exited {result.exit_code}: {result.stderr}")

    return once


def _engine(engine: Engine, command: list[str]) -> Peer:
    return program(*engine.argv, *engine.run, "--rm", NAME, *command, inside=engine.inside)
