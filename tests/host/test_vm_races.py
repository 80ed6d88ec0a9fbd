"""Two verbs for one VM at once, and a guest that does not answer: no machine is lost sight of."""

from __future__ import annotations

import os
import signal
import time

from clilab import refused
from conftest import Sublet, eventually
from vmhost import IMAGE, LOOP, SMALL, qemu, state


def test_a_stop_that_comes_in_while_it_is_woken(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
    sleeping = vm.spawn("hibernate", "box")
    eventually(lambda: state(vm, "box") != "running", "it is being hibernated")
    others = [vm.spawn("wake", "box"), vm.spawn("stop", "-t", "2", "box")]
    for process in (sleeping, *others):
        process.communicate(timeout=60)
    if state(vm, "box") == "running":  # the stop came first, and had dropped nothing
        vm.ok("stop", "-t", "2", "box")
    assert state(vm, "box") == "stopped"
    assert vm.ok("audit") == ""


def test_what_is_woken_meanwhile_is_not_removed(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
    vm.ok("hibernate", "box")
    waking = vm.spawn("wake", "box")
    time.sleep(0.3)  # it has the lock now, and needs longer
    outcome = vm("rm", "box")
    waking.communicate(timeout=60)
    if outcome.code:
        assert "box is running" in outcome.err
        assert state(vm, "box") == "running"
    else:
        assert waking.returncode != 0


def test_a_guest_that_does_not_answer_does_not_keep_rm_waiting(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--name", "box", IMAGE, *LOOP)
    os.kill(qemu(vm, "box"), signal.SIGSTOP)
    sleeping = vm.spawn("hibernate", "box")
    eventually(lambda: state(vm, "box") == "hibernating", "it is being hibernated")
    refused(vm, "rm", "box", code=1, says="box is hibernating")
    begun = time.monotonic()
    assert vm.ok("rm", "-f", "box") == "box"
    assert time.monotonic() - begun < 20
    sleeping.communicate(timeout=60)
    assert sleeping.returncode != 0
    assert vm.json("ps", "-a", "--json") == []


def test_one_that_dies_while_it_is_hibernated_has_ended(vm: Sublet) -> None:
    """As any other end: with --rm it is gone, else stopped, with its code."""
    for name, flags in (("kept", ()), ("gone", ("--rm",))):
        vm.ok("run", "-d", *SMALL, *flags, "--name", name, IMAGE, *LOOP)
        pid = qemu(vm, name)
        os.kill(pid, signal.SIGSTOP)
        sleeping, waiting = vm.spawn("hibernate", name), vm.spawn("wait", name)
        eventually(lambda name=name: state(vm, name) == "hibernating", "it is being hibernated")
        os.kill(pid, signal.SIGKILL)
        sleeping.communicate(timeout=60)
        assert sleeping.returncode == 1
        assert waiting.communicate(timeout=60)[0] == "137\n"
    eventually(lambda: len(vm.json("ps", "-a", "--json")) == 1, "the other one is gone")
    (left,) = vm.json("ps", "-a", "--json")
    assert (left["name"], left["state"], left["exit_code"]) == ("kept", "stopped", 137)


def test_one_that_sleeps_is_gone_when_it_is_stopped_if_it_was_to_be(vm: Sublet) -> None:
    vm.ok("run", "-d", *SMALL, "--rm", "--name", "box", IMAGE, *LOOP)
    taken = vm.ok("snapshot", "--memory", "box")
    vm.ok("hibernate", "box")
    vm.ok("rollback", "box", taken)  # stops it only to wake it again
    assert state(vm, "box") == "running"
    vm.ok("hibernate", "box")
    vm.ok("stop", "box")
    eventually(lambda: vm.json("ps", "-a", "--json") == [], "it is gone")
