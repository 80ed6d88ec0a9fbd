"""Room on the disk and getting it back: prune, system df, time to live."""

from __future__ import annotations

import json
import time
from datetime import datetime

from conftest import BASE, Sublet, eventually

LOOP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


def named(sublet: Sublet) -> set[str]:
    return {row["name"] for row in sublet.json("ps", "-a", "--json")}


def test_prune_deletes_what_is_stopped_and_says_so(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "up", BASE, *LOOP)
    write = ["sh", "-c", "head -c 3m /dev/urandom > /file; sync"]
    made = sublet.ok("create", "--name", "made", "-l", "keep", BASE, "true")
    sublet.ok("run", "--name", "ended", BASE, *write)
    ended = sublet.json("inspect", "ended")["id"]
    usage = {row["kind"]: row for row in sublet.json("system", "df", "--json")}
    assert usage["instances"]["count"] == 3
    assert usage["instances"]["active"] == 1
    assert 3 << 20 <= usage["instances"]["reclaimable"] <= usage["instances"]["size"]
    assert {"images", "volumes", "snapshots", "templates", "build cache"} <= usage.keys()
    verbose = sublet.json("system", "df", "-v", "--json")
    assert {row["name"] for row in verbose["instances"]} == {"up", "made", "ended"}
    assert "RECLAIMABLE" in sublet.ok("system", "df", "-v")

    assert sublet.ok("prune", "--filter", "until=1h").endswith("space: 0 B")
    outcome = sublet("prune", "--filter", "label!=keep")
    assert outcome.code == 0
    assert "To be removed" in outcome.err
    assert ended in outcome.err
    assert outcome.out.splitlines()[:2] == ["Deleted instances:", ended]
    assert "MiB" in outcome.out.splitlines()[-1]
    assert named(sublet) == {"up", "made"}
    (freed,) = json.loads(sublet.ok("instance", "prune", "-f", "--json"))
    assert (freed["kind"], freed["ids"]) == ("instances", [made])
    assert named(sublet) == {"up"}
    assert sublet("prune", "--filter", "name=up").code == 1


def test_system_prune_takes_what_nobody_needs(own: Sublet) -> None:
    own.ok("create", "--name", "made", BASE, "true")
    own.ok("network", "create", "lonely")
    own.ok("volume", "create", "kept")
    refused = own("system", "prune", "--volumes", "--filter", "until=1h")
    assert (refused.code, "filters" in refused.err) == (1, True)
    own.ok("system", "prune")
    assert named(own) == set()
    assert [row["name"] for row in own.json("images", "--json")] == [BASE]
    assert "lonely" not in own.ok("network", "ls")
    outcome = own("system", "prune", "-a", "--volumes", "-f")
    assert outcome.code == 0
    assert "sha256:" in outcome.out
    assert own.json("images", "--json") == []
    assert [row["name"] for row in own.json("volume", "ls", "--json")] == ["kept"]
    own.ok("volume", "rm", "kept")


def test_an_instance_goes_at_its_age_across_daemons(own: Sublet) -> None:
    own.ok("run", "-d", "--name", "short", "--ttl", "1s", BASE, *LOOP)
    eventually(lambda: named(own) == set(), "it is deleted")
    own.ok("run", "-d", "--name", "box", "--ttl", "2h", BASE, *LOOP)
    own.ok("create", "--name", "made", "--ttl", "2h", BASE, "true")
    seen = own.json("inspect", "box")
    assert seen["ttl"] == 7200
    assert seen["expires"] > seen["created"]
    own.kill_daemon()
    assert named(own) == {"box", "made"}
    own.ok("update", "--ttl", "1s", "made")
    eventually(lambda: named(own) == {"box"}, "the stopped one is deleted")
    age = time.time() - datetime.fromisoformat(seen["created"]).timestamp()
    own.ok("update", "--ttl", f"{age + 6:.0f}s", "box")
    own.kill_daemon()
    eventually(lambda: named(own) == set(), "the running one is deleted by the next daemon")
    expired = own.json("events", "--json", "--filter", "event=expired")
    assert [row["detail"]["name"] for row in expired] == ["short", "made", "box"]
