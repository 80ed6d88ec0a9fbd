"""`--filter KEY=VALUE`, as Docker has it: values of one key are alternatives, keys add up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sublet.domain.errors import InvalidArgument

Given = Mapping[str, tuple[str, ...]]
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def given(texts: Iterable[str], keys: Collection[str]) -> Given:
    """The values by their keys. Raises InvalidArgument for a key that is none of `keys`."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in keys:
            raise InvalidArgument(
                f"'{text}' is no filter.",
                hint=f"Write KEY=VALUE; the keys are {', '.join(sorted(keys))}.",
            )
        found[key] = (*found.get(key, ()), value)
    return found


def labelled(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether there is the label `KEY`, or `KEY=VALUE`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def boolean(key: str, text: str) -> bool:
    """The value of a filter that says yes or no. Raises InvalidArgument."""
    if text.lower() not in _BOOLEANS:
        raise InvalidArgument(
            f"{key}={text}: that is neither true nor false.", hint=f"Write --filter {key}=true."
        )
    return _BOOLEANS[text.lower()]
