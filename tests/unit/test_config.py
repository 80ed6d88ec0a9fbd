"""The settings: file, environment, refusals, and that each is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from sublet.domain.config import _PARSERS, DEFAULT_RUN, Config, load
from sublet.domain.errors import InvalidArgument
from sublet.domain.size import Size

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_defaults() -> None:
    assert load({}, {}) == Config()
    assert load({}, {"SUBLET_ROOT": "", "SUBLET_RUN": ""}) == Config()
    assert Config().socket == DEFAULT_RUN / "sublet.sock"


def test_the_file() -> None:
    config = load({"overcommit": 4, "reserve": "2g", "default_size": "2x4"}, {})
    assert config.overcommit == 4.0
    assert config.reserve == 2 << 30
    assert config.default_size == Size(2, 4 << 30)


def test_the_environment_overrides_the_file() -> None:
    config = load({"subnet": "10.1.0.0/16"}, {"SUBLET_SUBNET": "10.2.0.0/16", "SUBLET_ROOT": "/r"})
    assert config.subnet == "10.2.0.0/16"
    assert config.root == Path("/r")


@pytest.mark.parametrize(
    "file",
    [
        {"colour": "red"},
        {"root": "/elsewhere"},
        {"reserve": "much"},
        {"overcommit": "many"},
        {"default_size": "big"},
        {"subnet": "10.0.0.0/24"},
        {"subnet": "10.0.0.1/16"},
        {"subnet": "fd00::/16"},
        {"subnet": "mine"},
    ],
)
def test_refusals_name_the_key(file: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(file, {})
    assert next(iter(file)) in caught.value.message or next(iter(file.values())) in str(
        caught.value
    )


@pytest.mark.parametrize("key", [*_PARSERS, "SUBLET_ROOT", "SUBLET_RUN"])
def test_every_key_is_documented(key: str) -> None:
    assert f"`{key}`" in PAGE.read_text()


def test_the_prices_make_a_2x8_cost_what_an_m7i_large_does() -> None:
    prices = load({"notice": "5s"}, {}).prices
    assert prices.hourly(Size.parse("2x8")) == pytest.approx(0.1008)
    assert load({}, {"SUBLET_PRICE_CPU": "1"}).prices.hourly(Size.parse("2x8")) == 2.04
    with pytest.raises(InvalidArgument):
        load({"price_cpu": "-1"}, {})
