"""What pytest loads (entry point `sublet`). It is loaded by every run of pytest in an environment
that has Sublet: until a test asks for a service, nothing else is imported and nothing is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import pytest

from sublet.pytest_plugin.fixtures import RUN, explained, run_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sublet.pytest_plugin.recipe import Prepare
    from sublet.pytest_plugin.service import Service


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("sublet").addoption(
        "--sublet-keep",
        action="store_true",
        help="leave the instances that a failed test had, and tell how to reach them",
    )
    parser.addini("sublet_socket", "socket of Sublet's daemon; default: that of SUBLET_RUN")


@pytest.fixture(name="sublet_service")
def _factory(request: pytest.FixtureRequest) -> Iterator[Callable[..., Service]]:
    """Makes services that are gone after the test: `sublet_service("postgres:15")`, with what
    `sublet.pytest_plugin.sublet_service` takes besides `scope`."""
    made: list[Service] = []

    def make(
        image: str,
        *,
        prepare: Prepare | None = None,
        env: Mapping[str, str] | Sequence[str] = (),
        timeout: float = 60.0,
        **options: Any,
    ) -> Service:
        from sublet.pytest_plugin.recipe import recipe

        with explained():
            wanted = recipe(image, prepare, env, timeout, options)
            made.append(run_of(request).take(wanted, request.node))
        return made[-1]

    yield make
    for service in made:
        run_of(request).give_back(service)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    run = item.config.stash.get(RUN, None)
    if run and report.failed and report.when != "teardown":
        report.sections.extend(run.told(item))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash.get(RUN, None)
    if run:
        for problem in run.close():
            print(f"sublet: {problem}", file=sys.stderr)
