"""How long `true` takes as a further process in a running container.

The bare runtime executes it in a container that it runs itself, of Sublet's own configuration.
"""

from __future__ import annotations

import subprocess
import tempfile
import time

from bench.engines import IMAGE, NAME, Engine
from bench.host import call, enter, program
from bench.lab import Lab
from bench.measure import Findings, Peer, measure, ratio, rows


def run(lab: Lab) -> Findings:
    """All peers in turn."""
    instance = lab.client.run(IMAGE, ["sleep", "infinity"])
    cli = (*lab.sublet.argv, "exec", instance.id, "true")

    def sdk() -> None:
        if instance.exec(["true"]).exit_code != 0:
            raise RuntimeError("true failed")

    peers = {"sublet SDK": sdk, "sublet CLI": program(*cli, env=lab.sublet.env)}
    for name in lab.has("docker", "podman"):
        engine: Engine = getattr(lab, name)
        identity = engine(*engine.run, "-d", NAME, "sleep", "infinity").strip()
        peers[name] = program(*engine.argv, "exec", identity, "true", inside=engine.inside)
    bare: list[tuple[Engine, str]] = []
    try:
        for name in lab.has("crun", "runc"):
            bare.append((getattr(lab, name), f"exec-{name}"))
            peers[name] = _bare(lab, *bare[-1])
        timings = measure(peers, lab.rounds)
    finally:
        instance.remove(force=True)
        for engine, identity in bare:
            engine("delete", "--force", identity)
    aims = ratio("exec, SDK: times bare crun exec", timings, "sublet SDK", "crun", 1.5, most=True)
    return Findings(rows("execs", timings), aims)


def _bare(lab: Lab, engine: Engine, identity: str) -> Peer:
    """The runtime's own container, in the background, and `exec` in it."""
    lab.bundle.command("sleep", "infinity")
    argv = [*engine.argv, "run", "--detach", f"--bundle={lab.bundle.folder}", identity]
    with tempfile.TemporaryFile() as streams:  # its root becomes the owner of what these are
        subprocess.run(
            argv,
            stdin=streams,
            stdout=streams,
            stderr=streams,
            preexec_fn=lambda: enter(engine.inside or {}),
            check=True,
            timeout=60,
        )
    deadline = time.monotonic() + 10
    while '"running"' not in call(*engine.argv, "state", identity, inside=engine.inside):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{identity} does not run")
    return program(*engine.argv, "exec", identity, "true", inside=engine.inside)
