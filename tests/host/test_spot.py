"""Spot: sold, noticed, taken back at the deadline, and back again; with real containers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from clilab import refused
from conftest import Sublet, eventually
from marketlab import (
    IMAGE,
    LATE,
    LOOP,
    NOTICE,
    comes,
    events,
    late,
    request,
    seconds,
    small_host,
    spot,
    states,
    status,
    tells,
)


@pytest.fixture(scope="module")
def shop() -> Iterator[Sublet]:
    with small_host() as sublet:
        yield sublet


@pytest.fixture
def host(shop: Sublet) -> Iterator[Sublet]:
    yield shop
    shop.ok("host", "undrain")
    shop.clean()


def test_on_demand_takes_the_room_of_spot_after_its_notice(host: Sublet) -> None:
    for number in range(4):
        spot(host, f"spot{number}")
    refused(host, "run", "-d", "--no-wait", "-m", "1g", IMAGE, *LOOP, says="free")
    too_large = host("run", "-d", "-m", "3g", IMAGE, *LOOP)
    assert too_large.code == 125
    assert all(host.json("inspect", f"spot{n}")["notice"] is None for n in range(4))
    begin = time.monotonic()
    made = host("run", "-d", "--name", "od", "-m", "1g", IMAGE, *LOOP)
    took = time.monotonic() - begin
    assert made.code == 0
    assert "for the room of 2 spot instances" in made.err
    assert took >= NOTICE
    assert host.json("inspect", "od")["id"] == made.out.strip()
    gone = [name for name in (f"spot{n}" for n in range(4)) if name not in states(host)]
    assert len(gone) == 2, "as many as it takes, and no more"
    for name in gone:
        assert 0 <= late(host, name) < LATE
        tells(host, name, "closed", "instance-terminated-no-capacity")
    amounts = {row["name"]: row["amount"] for row in host.json("cost", "--json")}
    assert all((amounts[f"spot{n}"] == 0) == (f"spot{n}" in gone) for n in range(4)), "free"
    found = host.json("host", "--json")
    assert (found["sold"]["memory"], found["spot"]["memory"]) == (1 << 30, 1 << 30)
    assert found["free"]["memory"] == 0
    text = host.ok("host")
    assert "█" in text
    assert "▒" in text


def test_a_foreground_run_waits_too(host: Sublet) -> None:
    spot(host, "all", memory="2g")
    outcome = host("run", "--rm", "-m", "1g", IMAGE, "echo", "made it")
    assert (outcome.code, outcome.out) == (0, "made it\n")
    assert "1 spot instance: all" in outcome.err
    assert states(host) == {}


def test_a_start_waits_too(host: Sublet) -> None:
    host.ok("create", "--name", "od", "-m", "2g", IMAGE, *LOOP)
    spot(host, "all", memory="2g")
    refused_at_once = host("start", "--no-wait", "od")
    assert (refused_at_once.code, states(host)["all"]) == (1, "running")
    outcome = host("start", "od")
    assert (outcome.code, outcome.out) == (0, "od\n")
    assert "1 spot instance: all" in outcome.err
    assert states(host) == {"od": "running"}


def test_who_is_told_what(host: Sublet) -> None:
    script = "trap 'echo signalled' USR1; trap 'exit 3' TERM; while :; do sleep 0.05; done"
    flags = ("--notice-signal", "USR1", "--notice-exec", "echo told > /told; exit 4")
    host.ok(
        "run", "-d", "--name", "told", "--spot", "--on-reclaim", "stop", *flags, IMAGE,
        "sh", "-c", script,
    )  # fmt: skip
    [notice] = host.json("reclaim", "--notice", "10s", "--json", "told")
    shown = host.json("inspect", "told")
    assert shown["notice"]["action"] == notice["action"] == "stop"
    assert shown["notice"]["time"] == notice["time"]
    tells(host, "told", "active", "marked-for-stop")
    eventually(lambda: host("exec", "told", "cat", "/told").out == "told\n", "its command ran")
    eventually(lambda: "signalled" in host.ok("logs", "told"), "it got the signal")
    comes(host, "told", "stopped")
    assert 0 <= late(host, "told") < LATE
    assert events(host, "notice-exec", "told")[0]["detail"]["exit_code"] == "4"
    shown = host.json("inspect", "told")
    assert (shown["exit_code"], shown["notice"]) == (3, None)
    assert "owner" in shown["reason"]
    tells(host, "told", "disabled", "instance-stopped-no-capacity")


def test_a_notice_ends_with_its_instance(host: Sublet) -> None:
    spot(host, "early", "--on-reclaim", "stop")
    spot(host, "gone")
    assert len(host.ok("reclaim", "--all", "--notice", "6s").split()) == 2
    host.ok("stop", "early")
    host.ok("rm", "-f", "gone")
    assert host.json("inspect", "early")["notice"] is None
    tells(host, "early", "disabled", "instance-stopped-by-user")
    tells(host, "gone", "closed", "instance-terminated-by-user")
    host.ok("start", "early")
    time.sleep(6.5)  # the deadline that it had passes
    assert states(host) == {"early": "running"}


def test_now_is_now_and_on_demand_is_nobodys(host: Sublet) -> None:
    spot(host, "cheap")
    host.ok("run", "-d", "--name", "paid", "-m", "64m", IMAGE, *LOOP)
    outcome = host("reclaim", "paid")
    assert outcome.code == 1
    assert "on demand" in outcome.err
    host.ok("reclaim", "--now", "cheap")
    comes(host, "cheap", "gone")
    for notice in events(host, "notice", "cheap")[-1:]:
        assert seconds(notice["detail"]["time"]) - seconds(notice["time"]) < NOTICE
    assert host("reclaim").code == 1
    assert states(host) == {"paid": "running"}


def test_persistent_requests_come_back(host: Sublet) -> None:
    spot(host, "back", "--persistent", "--on-reclaim", "stop", memory="1g")
    host.ok("exec", "back", "sh", "-c", "echo kept > /kept")
    host.ok("run", "-d", "--name", "od", "-m", "2g", IMAGE, *LOOP)
    assert states(host) == {"back": "stopped", "od": "running"}
    tells(host, "back", "disabled", "instance-stopped-no-capacity")
    host.ok("rm", "-f", "od")
    comes(host, "back", "running")
    tells(host, "back", "active", "fulfilled")
    assert host.ok("exec", "back", "cat", "/kept") == "kept"
    host.ok("run", "-d", "--name", "od", "-m", "2g", IMAGE, *LOOP)
    comes(host, "back", "stopped")
    host.ok("spot", "cancel", "back")
    host.ok("rm", "-f", "od")
    time.sleep(NOTICE + 1.5)  # in which it would come back
    assert states(host) == {"back": "stopped"}
    tells(host, "back", "cancelled", "canceled-before-fulfillment")


def test_cancelling_does_not_end_the_instance(host: Sublet) -> None:
    spot(host, "on", "--persistent", "--on-reclaim", "stop")
    host.ok("spot", "cancel", request(host, "on")["id"])
    tells(host, "on", "cancelled", "request-canceled-and-instance-running")
    assert states(host) == {"on": "running"}
    assert host.json("spot", "show", "on")["type"] == "persistent"
    assert host("spot", "cancel", "nothing").code == 1


def test_a_persistent_request_waits_for_its_first_room(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "od", "-m", "2g", IMAGE, *LOOP)
    refused(host, "run", "-d", "--spot", IMAGE, *LOOP, says="free")
    flags = ("--spot", "--persistent", "--on-reclaim", "stop")
    waits = host("run", "-d", "--name", "waits", *flags, IMAGE, *LOOP)
    assert waits.code == 0
    assert "capacity-not-available" in waits.err
    tells(host, "waits", "open", "capacity-not-available")
    host.ok("rm", "-f", "od")
    comes(host, "waits", "running")
    tells(host, "waits", "active", "fulfilled")


def test_who_does_not_pay_the_price_goes(host: Sublet) -> None:
    on_demand = host.json("market", "--json", "--size", "1x0.5")["on_demand_price"]
    flags = ("--persistent", "--on-reclaim", "stop", "--max-price", str(on_demand / 2))
    spot(host, "thrifty", *flags, memory="512m")
    assert host.json("inspect", "thrifty")["price"] == pytest.approx(on_demand / 5)
    host.ok("run", "-d", "--name", "od", "-m", "1g", IMAGE, *LOOP)  # half: 60 % of on demand
    assert host.json("market", "--json")["factor"] == pytest.approx(0.6)
    eventually(lambda: events(host, "notice", "thrifty"), "it is given notice")
    comes(host, "thrifty", "stopped")
    tells(host, "thrifty", "disabled", "instance-stopped-by-price")
    outcome = host("start", "thrifty")
    assert (outcome.code, "above" in outcome.err) == (1, True)
    refused(host, "run", "-d", "--spot", "--max-price", "0.01", IMAGE, *LOOP, says="above")
    host.ok("rm", "-f", "od")
    comes(host, "thrifty", "running")
    history = host.json("market", "--json")["history"]
    assert {0.2, 0.6} <= {row["factor"] for row in history}


def test_the_market_is_drawn(host: Sublet) -> None:
    text = host.ok("market")
    assert "of on demand" in text
    assert "█" in text or "▂" in text
    for ending, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        file = host.home / f"market.{ending}"
        host.ok("market", "--out", str(file))
        assert file.read_bytes().startswith(magic)
    assert host("market", "--out", "/nowhere/x.png").code == 1


def test_a_drained_host_starts_nothing(host: Sublet) -> None:
    spot(host, "cheap")
    host.ok("run", "-d", "--name", "paid", "-m", "64m", IMAGE, *LOOP)
    host.ok("create", "--name", "later", IMAGE, *LOOP)
    assert len(host.ok("host", "drain").split()) == 1
    refused(host, "run", "-d", IMAGE, *LOOP, says="drained")
    assert host("start", "later").code == 1
    comes(host, "cheap", "gone")
    host.kill_daemon()
    assert host.json("host", "--json")["draining"] is True
    refused(host, "run", "-d", "--spot", IMAGE, *LOOP, says="drained")
    assert states(host) == {"paid": "running", "later": "stopped"}
    host.ok("host", "undrain")
    host.ok("start", "later")


def test_notices_survive_the_daemon(host: Sublet) -> None:
    spot(host, "stops", "--on-reclaim", "stop")
    spot(host, "goes")
    host.ok("reclaim", "--all", "--notice", "15s")
    host.kill_daemon()
    assert host.json("inspect", "stops")["notice"]["action"] == "stop"
    comes(host, "goes", "gone")
    comes(host, "stops", "stopped")
    assert -0.001 <= late(host, "stops") < 2 * LATE, "not before; the daemon had to start first"
    tells(host, "stops", "disabled", "instance-stopped-no-capacity")
    spot(host, "late")
    host.ok("reclaim", "late")
    host.kill_daemon()
    deadline = seconds(events_offline(host, "late"))
    time.sleep(max(0.0, deadline - time.time()) + 0.5)  # the deadline passes unnoticed
    comes(host, "late", "gone")
    tells(host, "late", "closed", "instance-terminated-no-capacity")


def events_offline(host: Sublet, name: str) -> str:
    """When the notice of an instance ends, by the database: no daemon is to be started."""
    import sqlite3

    with sqlite3.connect(host.root / "sublet.db") as database:
        query = "SELECT detail FROM events WHERE type = 'instance.notice' ORDER BY id DESC"
        details = [json.loads(row[0]) for row in database.execute(query)]
    database.close()
    return str(next(detail["time"] for detail in details if detail["name"] == name))


@pytest.mark.parametrize(
    ("point", "action", "state", "last"),
    [
        ("end/teardown:before", "stop", "stopped", "instance-stopped-no-capacity"),
        ("end/row:after", "stop", "stopped", "instance-stopped-no-capacity"),
        ("end/row:after", "terminate", "gone", "instance-terminated-no-capacity"),
        ("remove/delete layer:before", "terminate", "gone", "instance-terminated-no-capacity"),
    ],
)
def test_a_daemon_that_dies_at_a_reclaim(
    host: Sublet, point: str, action: str, state: str, last: str
) -> None:
    spot(host, "victim", "--on-reclaim", action)
    pid = host.daemon_pid()
    host.ok("daemon", "--stop")
    frail = replace(host, extra={**host.extra, "SUBLET_FAULT": point})
    frail("reclaim", "--now", "victim")
    eventually(lambda: not (host.run_dir / "sublet.sock").exists() or dead(host), "it has died")
    assert host.daemon_pid() != pid
    comes(host, "victim", state)
    eventually(lambda: status(host, "victim")[1] == last, "the request tells why")
    eventually(lambda: host("audit").code == 0, "the audit is clean")


def dead(host: Sublet) -> bool:
    """Whether nobody answers at the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(host.run_dir / "sublet.sock")) != 0


def test_a_resize_takes_the_room_of_spot(host: Sublet) -> None:
    spot(host, "cheap", memory="1g")
    host.ok("run", "-d", "--name", "paid", "-m", "512m", IMAGE, *LOOP)
    for flags in (("--no-wait", "--memory", "1536m"), ("--memory", "3g")):
        outcome = host("update", *flags, "paid")
        assert (outcome.code, "free" in outcome.err) == (1, True)
    outcome = host("update", "--memory", "1600m", "cheap")
    assert (outcome.code, "free" in outcome.err) == (1, True), "spot takes nobody's room"
    host.ok("update", "--memory", "1g", "paid")
    assert states(host) == {"cheap": "running", "paid": "running"}, "there was room"
    grown = host("update", "--memory", "1536m", "paid")
    assert grown.code == 0, grown.err
    assert "for the room of 1 spot instance: cheap" in grown.err
    assert states(host) == {"paid": "running"}
    assert 0 <= late(host, "cheap") < LATE
    assert host.json("host", "--json")["free"]["memory"] == 512 << 20


def test_one_that_is_resized_while_it_waits_gets_room_for_what_it_is_then(host: Sublet) -> None:
    for name in ("one", "two"):
        spot(host, name, memory="1g")
    host.ok("create", "--name", "late", "-m", "512m", IMAGE, *LOOP)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(host, "start", "late")
        eventually(lambda: any(events(host, "notice", n) for n in ("one", "two")), "it waits")
        host.ok("update", "--memory", "1536m", "late")
        assert started.result().code == 0
    assert states(host) == {"late": "running"}
    assert host.json("host", "--json")["free"]["memory"] == 512 << 20


def test_a_fork_takes_the_room_of_spot(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "paid", "-m", "1g", IMAGE, *LOOP)
    spot(host, "cheap", memory="1g")
    refused(host, "fork", "--no-wait", "paid", says="free", code=1)
    made = host("fork", "--name", "twin", "paid")
    assert made.code == 0, made.err
    assert "for the room of 1 spot instance: cheap" in made.err
    assert states(host) == {"paid": "running", "twin": "running"}
    tells(host, "cheap", "closed", "instance-terminated-no-capacity")
    refused(host, "fork", "paid", says="free", code=1)


def test_a_restore_takes_the_room_of_spot(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "paid", "-m", "1g", IMAGE, *LOOP)
    backup = host.ok("backup", "paid")
    spot(host, "cheap", memory="1g")
    refused(host, "restore", "--no-wait", "--as", "twin", backup, says="free", code=1)
    made = host("restore", "--as", "twin", backup)
    assert made.code == 0, made.err
    assert "for the room of 1 spot instance: cheap" in made.err
    assert states(host) == {"paid": "running", "twin": "running"}
    assert 0 <= late(host, "cheap") < 1
    refused(host, "restore", "--as", "third", backup, says="--no-start", code=1)
    host.ok("backup", "rm", backup)


def test_a_restored_request_waits_for_its_room(host: Sublet) -> None:
    spot(host, "dev", "--persistent", "--on-reclaim", "stop", memory="1g")
    backup = host.ok("backup", "dev")
    host.ok("rm", "-f", "dev")
    host.ok("run", "-d", "--name", "od", "-m", "1536m", IMAGE, *LOOP)
    made = host("restore", backup)
    assert made.code == 0, made.err
    assert "dev does not run yet" in made.err
    assert status(host, "dev") == ("open", "capacity-not-available")
    host.ok("rm", "-f", "od")
    comes(host, "dev", "running")
    assert status(host, "dev") == ("active", "fulfilled")
    host.ok("backup", "rm", backup)


def test_sizes(host: Sublet) -> None:
    rows = {row["name"]: row for row in host.json("sizes", "--json")}
    assert rows["large"]["size"] == "2x8"
    assert rows["large"]["price"] == pytest.approx(0.1008)
    host.ok("run", "-d", "--name", "named", "--size", "micro", IMAGE, *LOOP)
    host.ok("run", "-d", "--name", "plain", "--size", "0.5x0.25", "--cpus", "1", IMAGE, *LOOP)
    shown = {row["name"]: row["size"] for row in host.json("ps", "--json")}
    assert shown == {"named": "2x1", "plain": "1x0.25"}
    refused(host, "run", "-d", "--size", "giant", IMAGE, *LOOP, says="no size 'giant'")


def test_a_restart_keeps_its_room(host: Sublet) -> None:
    host.ok("run", "-d", "--name", "od", "-m", "2g", IMAGE, *LOOP)
    flags = ("--spot", "--persistent", "--on-reclaim", "stop")
    host.ok("run", "-d", "--name", "waits", *flags, IMAGE, *LOOP)
    host.ok("restart", "od")
    assert states(host) == {"od": "running", "waits": "stopped"}
    host.ok("rm", "-f", "waits", "od")
    tells(host, "waits", "closed", "instance-terminated-by-user")
    spot(host, "noticed")
    host.ok("reclaim", "--notice", "10s", "noticed")
    host.ok("restart", "noticed")
    assert host.json("inspect", "noticed")["notice"]["action"] == "terminate"
    comes(host, "noticed", "gone")
    tells(host, "noticed", "closed", "instance-terminated-no-capacity")


def test_twenty_at_once(host: Sublet) -> None:
    names = [f"n{number}" for number in range(20)]
    for name in names:
        spot(host, name, memory="32m")
    host.ok("reclaim", "--all")
    eventually(lambda: states(host) == {}, "all are gone", 60)
    given = [seconds(events(host, "notice", name)[0]["time"]) for name in names]
    assert max(given) - min(given) < LATE
    assert all(0 <= late(host, name) < LATE for name in names)


def test_the_metadata_service_tells_of_a_notice(host: Sublet) -> None:
    url, name = "http://169.254.169.254/latest", "X-aws-ec2-metadata-token"
    script = f"""
        token=$(curl -s -X PUT -H '{name}-ttl-seconds: 600' {url}/api/token)
        until curl -sf -H "{name}: $token" {url}/meta-data/spot/instance-action; do sleep 0.1; done
        exec sleep 1000"""
    flags = ("--name", "asks", "--spot", "--on-reclaim", "stop")
    host.ok("run", "-d", *flags, IMAGE, "bash", "-c", script)
    found = host.json("rehearse", "--notice", "10s", "--json", "asks")
    assert found["reacted"] is True
    assert 0 <= found["metadata"] < 10
    told = json.loads(host.ok("logs", "asks"))
    assert told["action"] == "stop"
    host.ok("restart", "asks")
    [notice] = host.json("reclaim", "--notice", "10s", "--json", "asks")
    eventually(lambda: len(host.ok("logs", "asks").split("}")) == 3, "it is told again")
    told = json.loads(host.ok("logs", "asks").split("}")[1] + "}")
    assert told == {"action": "stop", "time": notice["time"][:19] + "Z"}
    comes(host, "asks", "stopped")


def test_a_rehearsal_ends_nothing(host: Sublet) -> None:
    flags = ("--notice-exec", "echo ready > /ready")
    spot(host, "ready", *flags)
    spot(host, "deaf", "--on-reclaim", "stop")
    outcome = host("rehearse", "--notice", "30s", "--json", "ready")
    found = json.loads(outcome.out)
    assert (found["reacted"], found["exit_code"], found["action"]) == (True, 0, "terminate")
    assert found["lost_bytes"] > 0, "what it wrote is in no backup"
    assert "its command ended with 0" in outcome.err
    begin = time.monotonic()
    found = host.json("rehearse", "--notice", "1s", "--json", "deaf")
    assert time.monotonic() - begin >= 1
    assert (found["reacted"], found["lost_bytes"], found["lost_memory"]) == (False, 0, True)
    assert "did not react" in host.ok("rehearse", "--notice", "100ms", "deaf")
    assert states(host) == {"ready": "running", "deaf": "running"}
    assert host.json("inspect", "ready")["notice"] is None
    tells(host, "ready", "active", "fulfilled")


def test_a_rehearsal_tells_of_the_backup(host: Sublet) -> None:
    spot(host, "kept", "--backup", "on-notice")
    host.ok("exec", "kept", "sh", "-c", "echo worth it > /precious")
    found = host.json("rehearse", "--notice", "60s", "--json", "kept")
    assert (found["reacted"], found["backed_up"], found["lost_bytes"]) == (True, True, 0)
    assert 0 < found["backup_started"] < found["backup_completed"] < 60
    assert found["last_backup"]
    host.ok("exec", "kept", "sh", "-c", "echo more > /later")
    again = host.json("rehearse", "--notice", "100ms", "--json", "kept")
    assert again["lost_bytes"] > 0 or again["backed_up"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--persistent",), "--persistent is for spot"),
        (("--spot", "--persistent"), "persistent request"),
        (("--spot", "--on-reclaim", "hibernate"), "hibernated"),
        (("--spot", "--on-reclaim", "explode"), "explode"),
        (("--spot", "--max-price", "cheap"), "not a price"),
        (("--spot", "--max-price", "-1"), "not a price"),
        (("--spot", "--rm", "--on-reclaim", "stop"), "--rm"),
        (("--spot", "--notice-signal", "SIGNOPE"), "SIGNOPE"),
    ],
)
def test_what_cannot_be_asked_for(host: Sublet, flags: tuple[str, ...], says: str) -> None:
    refused(host, "run", "-d", *flags, IMAGE, *LOOP, says=says)


def test_pressure_makes_spot_go() -> None:
    """With a limit that any work on the CPUs reaches."""
    with small_host(SUBLET_PRESSURE="cpu=1") as host:
        busy = ("sh", "-c", "while :; do :; done")
        for number in range(4):
            flags = ("--name", f"busy{number}", "--spot", "-m", "32m")
            if host("run", "-d", *flags, IMAGE, *busy).code:
                break  # other work on this host has pressed it already
        eventually(lambda: host.json("host", "--json")["pressure"] == "cpu", "it is felt")
        eventually(lambda: len(states(host)) < 4, "some have gone", 40)
        told = host("run", "-d", "--spot", IMAGE, *LOOP)
        assert told.code == 125
        assert "short of cpu" in told.err
