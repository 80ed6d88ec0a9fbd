"""Signals by name and number, as signal(7) has them for x86 and ARM."""

from __future__ import annotations

import re

from sublet.domain.errors import InvalidArgument

_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP "
    "TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_NUMBERS = {name: number for number, name in enumerate(_NAMES, 1)} | {"POLL": 29, "CLD": 17}
_RTMIN, _RTMAX = 34, 64
"""As the C library has them, which keeps 32 and 33 for itself."""

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?")


def signal_number(text: str) -> int:
    """`SIGTERM`, `TERM`, `15`, `RTMIN+3`: the number. Raises InvalidArgument."""
    name = text.upper().removeprefix("SIG")
    number = _NUMBERS.get(name, 0)
    if text.isascii() and text.isdecimal() and len(text) < 3:
        number = int(text)
    elif match := _REAL_TIME.fullmatch(name):
        sign = -1 if match[2] == "-" else 1
        number = (_RTMIN if match[1] == "MIN" else _RTMAX) + sign * int(match[3] or 0)
        number = number if number >= _RTMIN else 0
    if not 0 < number <= _RTMAX:
        raise InvalidArgument(f"'{text}' is not a signal.", hint="Write SIGTERM or 15.")
    return number
