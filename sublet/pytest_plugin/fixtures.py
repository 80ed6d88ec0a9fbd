"""Fixtures of services, as a conftest.py makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from sublet.pytest_plugin.recipe import Prepare
    from sublet.pytest_plugin.run import Run
    from sublet.pytest_plugin.service import Service

    Scope = Literal["session", "package", "module", "class", "function"]

RUN: pytest.StashKey[Run] = pytest.StashKey()
"""What this process has, of a run that has asked for a service."""


def sublet_service(
    image: str,
    *,
    scope: Scope = "function",
    prepare: Prepare | None = None,
    env: Mapping[str, str] | Sequence[str] = (),
    timeout: float = 60.0,
    **options: Any,
) -> Any:
    """A fixture whose value is a `Service`: `db = sublet_service("postgres:15", prepare=migrate)`.

    An instance of the image (or `NAME=IMAGE`) is started once in a run of pytest, however many
    workers it has, with `env`; it must be healthy within `timeout` seconds; `prepare(service)` is
    called once, and the instance is stopped. Every test gets a fork of its own of that; with
    another `scope`, all tests of one, in each worker. `options` are those of `Client.run`, such as
    `size="1x0.5"`. What is prepared must be on disk when the service has stopped.
    """

    @pytest.fixture(scope=scope)
    def service(request: pytest.FixtureRequest) -> Iterator[Service]:
        from sublet.pytest_plugin.recipe import recipe

        with explained():
            run = run_of(request)
            wanted = recipe(image, prepare, env, timeout, options)
            made = run.take(wanted, request.node, request.fixturename or "", _uses(request))
        yield made
        run.give_back(made)

    return service


def _uses(request: pytest.FixtureRequest) -> int:
    """How often a function's fixture is wanted, at most; once where others share it."""
    if request.scope != "function":
        return 1
    return sum(
        request.fixturename in getattr(item, "fixturenames", ()) for item in request.session.items
    )


def run_of(request: pytest.FixtureRequest) -> Run:
    """What this process has of the run, which begins when it is first asked for. Its directory is
    one that all workers of the run share. Raises SubletError."""
    config = request.config
    if RUN not in config.stash:
        from sublet.pytest_plugin.run import Run

        base = request.getfixturevalue("tmp_path_factory").getbasetemp()
        shared = base.parent if hasattr(config, "workerinput") else base
        keep = config.getoption("sublet_keep", False)
        config.stash[RUN] = Run(shared / "sublet", config.getini("sublet_socket"), keep=keep)
    return config.stash[RUN]


@contextmanager
def explained() -> Iterator[None]:
    """What Sublet says went wrong is shown, not where in Sublet."""
    from sublet.domain.errors import SubletError

    try:
        yield
    except SubletError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
