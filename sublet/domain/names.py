"""Ids and names of instances, and the host names derived from them."""

from __future__ import annotations

import re

from sublet.domain.errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?")
_ID = re.compile(r"[0-9a-f]{12}")

_ADJECTIVES = """
    airy bold brave bright calm clear cosy crisp eager fair fond fresh glad grand green keen
    kind light lucky mild neat new noble open plain proud quick quiet rapid ready round sharp
    shy sleek smart snug soft solid spare still sunny swift tall tidy trim warm wise young
""".split()
_NOUNS = """
    annex attic balcony barn bay bungalow cabin cellar chalet chamber cottage court den dock
    flat floor garage garret gate hall harbour haven hearth hostel house hut inn kiosk ledge
    lodge loft manor mews nook office pad parlour patio porch room shed shelf stable studio
    suite terrace tower villa wing yard
""".split()


def is_id(text: str) -> bool:
    """Whether `text` has the shape of an instance id: 12 hexadecimal digits."""
    return bool(_ID.fullmatch(text))


def validate_name(name: str, what: str = "an instance") -> str:
    """`name`, if it may name an instance, or `what` else: it becomes a DNS label and is part of no
    path."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"'{name}' cannot name {what}.",
            hint="Use up to 63 letters, digits, '_', '.' and '-', a letter or digit first.",
        )
    return name


def validate_new_name(name: str) -> str:
    """`name`, if an instance may be given it: no id, which would mean another instance."""
    if is_id(name):
        raise InvalidArgument(
            f"'{name}' has the shape of an id: 12 hexadecimal digits.",
            hint="Add a '-', so that it is taken for no other instance.",
        )
    return validate_name(name)


def validate_hostname(name: str) -> str:
    """`name`, if it is a host name (RFC 1123)."""
    if not _HOSTNAME.fullmatch(name):
        raise InvalidArgument(
            f"'{name}' is not a host name.", hint="Use letters, digits, '.' and '-'."
        )
    return name


def friendly_name(instance_id: str) -> str:
    """A name that people can say, derived from the id: `brave_loft_3f2a`."""
    number = int(instance_id, 16)
    adjective = _ADJECTIVES[number % len(_ADJECTIVES)]
    noun = _NOUNS[number // len(_ADJECTIVES) % len(_NOUNS)]
    return f"{adjective}_{noun}_{instance_id[:4]}"
