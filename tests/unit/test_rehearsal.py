"""What a rehearsal takes for an answer to its notice."""

from __future__ import annotations

from sublet.domain.event import Event
from sublet.engine.rehearsal import follows


def test_a_backup_that_began_before_the_notice_is_no_answer_to_it() -> None:
    begun: set[str] = set()
    told = [
        Event(2.0, "backup.completed", "i", {"backup": "earlier"}),
        Event(2.1, "backup.started", "i", {"backup": "own"}),
        Event(2.2, "instance.notice-exec", "i", {"exit_code": "0"}),
        Event(2.9, "backup.completed", "i", {"backup": "own"}),
    ]
    assert [event.time for event in told if follows(event, begun)] == [2.1, 2.2, 2.9]
