"""Kernels that cannot map the ids of a SquashFS: the image is unpacked once instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Sublet

from sublet.domain.config import Config
from sublet.domain.size import Size
from sublet.domain.spec import LogConfig
from sublet.drivers import processes
from sublet.drivers.cgroup import Cgroups
from sublet.drivers.container.containers import Containers, Plan
from sublet.drivers.container.spec import PATH, Process
from sublet.drivers.layers import Layers
from sublet.image import sif

INSTANCE, BASE_ID = "0123456789ab", 0x7000_0000


@pytest.mark.parametrize("mapped", [True, False])
async def test_a_container_on_either_kind_of_layer(
    tmp_path: Path, base_file: Path, shared: Sublet, mapped: bool
) -> None:
    config = Config(root=tmp_path / "root", run=tmp_path / "run")
    containers = Containers(config, Cgroups(config.identity))
    await containers.setup()
    layers = Layers(containers.mounts / "images", config.root / "unpacked", mapped=mapped)
    with base_file.open("rb") as file:
        info = sif.read(file)
    try:
        lower = await layers.acquire(base_file, info.offset, info.length, INSTANCE)
        assert (config.root / "unpacked").exists() is not mapped
        await containers.isolate(INSTANCE, BASE_ID)
        script = "stat -c %u:%g /etc/shadow; echo new > /etc/new; stat -c %u /etc/new"
        process = Process(("sh", "-c", script), (PATH,), "/")
        limit = Size(1, 64 << 20)
        plan = Plan(INSTANCE, process, "", "h", BASE_ID, limit, 99, (), {}, False, LogConfig())
        await containers.prepare(plan, lower)
        started = await containers.start(plan, attach=False)
        since = processes.start_time(started.supervisor)
        await processes.ended(started.supervisor, since)
        log = containers.places(INSTANCE).log.read_text()
        assert [line.split()[-1] for line in log.splitlines()] == ["0:42", "0"]
        assert containers.exit_code(INSTANCE) == 0
    finally:
        await containers.teardown(INSTANCE)
        await containers.delete(INSTANCE)
        layers.release(INSTANCE)
        assert containers.leftovers(set(), set()) == []
        containers.close()
    assert layers.unused({base_file.stem}) == []
    layers.drop(base_file.stem)
    assert not list((config.root / "unpacked").glob("*"))
