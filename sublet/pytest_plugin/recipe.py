"""What a service is made of, and by what another process knows that it is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sublet.pytest_plugin.service import Service

Prepare = Callable[[Service], object]
"""Puts in what all forks are to have: called with the service when it is healthy."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`timeout`: seconds until the service must be healthy. `options`: those of `Client.run`."""

    image: str
    prepare: Prepare | None = None
    env: tuple[str, ...] = ()
    timeout: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same recipe, in each worker of a run."""
        options = sorted(self.options.items())
        whole = repr((self.image, self.env, options, _identity(self.prepare)))
        return hashlib.sha256(whole.encode()).hexdigest()[:16]


def recipe(
    image: str,
    prepare: Prepare | None,
    env: Mapping[str, str] | Sequence[str],
    timeout: float,
    options: Mapping[str, Any],
) -> Recipe:
    """One, as a fixture is asked for it."""
    from sublet.sdk.results import environment

    return Recipe(image, prepare, environment(env), timeout, options)


def _identity(function: Any) -> str:
    """Tells functions apart, those that one piece of code makes with different values, too. A
    value that is shown with its address makes one of its own in each worker."""
    if isinstance(function, partial):
        return repr((_identity(function.func), function.args, sorted(function.keywords.items())))
    owner, function = getattr(function, "__self__", None), getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return repr(function)
    place = (function.__module__, function.__qualname__, code.co_filename, [*code.co_positions()])
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return repr((owner, place, function.__defaults__, function.__kwdefaults__, cells))
