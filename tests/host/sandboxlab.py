"""What the tests of sandboxes share."""

from __future__ import annotations

from conftest import eventually

import sublet

SERVER = (
    "perl -MIO::Socket::INET -e '"
    "$s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die; $| = 1; "
    'print "up\\n"; while ($c = $s->accept) { while (<$c>) { last if /^\\s*$/ } '
    'print $c "HTTP/1.0 200 OK\\r\\n\\r\\nhello"; close $c }'
    "'"
)
"""A web server of one answer, in what Debian always has; it says when it is up."""

COMMANDS = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"


def runs(box: sublet.Sandbox, what: str) -> bool:
    """Whether a process in it has that in its command line; written so that the looking has not."""
    return what in box.exec(COMMANDS).stdout


def gone(box: sublet.Sandbox, *words: str) -> None:
    """Wait until no process has any of the words in its command line."""
    eventually(lambda: not any(runs(box, word) for word in words), f"{words} have ended")
