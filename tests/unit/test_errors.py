"""Errors: stable codes, whole across the API, documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sublet.domain import errors
from sublet.domain.errors import NoSuchImage, SubletError, all_errors, from_dict

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("cls", all_errors())
def test_an_error_crosses_the_api_whole(cls: type[SubletError]) -> None:
    error = from_dict(cls("It broke.", hint="Mend it.").to_dict())
    assert type(error) is cls
    assert (error.message, error.hint) == ("It broke.", "Mend it.")
    assert str(error) == "It broke.\nMend it."


@pytest.mark.parametrize("cls", all_errors())
def test_an_error_is_documented(cls: type[SubletError]) -> None:
    assert cls.__doc__
    assert cls.code == cls.code.lower()
    assert 400 <= cls.status < 600
    assert 1 <= cls.exit_code <= 255


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in all_errors()]
    assert len(codes) == len(set(codes))


def test_every_error_of_the_module_is_known() -> None:
    public = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, SubletError)
    }
    assert public == {cls for cls in all_errors() if cls.__module__ == errors.__name__}


def test_a_hint_can_be_left_out() -> None:
    assert NoSuchImage("No x.").hint == NoSuchImage.default_hint
    assert str(NoSuchImage("No x.", hint="")) == "No x."


@pytest.mark.parametrize("data", [{}, {"code": "of-a-newer-daemon"}, {"message": None}])
def test_what_is_unknown_becomes_the_base(data: dict[str, object]) -> None:
    assert type(from_dict(data)) is SubletError


def test_the_reference_page_is_current() -> None:
    script = ROOT / "scripts" / "errors_page.py"
    subprocess.run([sys.executable, script, "--check"], check=True, timeout=60)
