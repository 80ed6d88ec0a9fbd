"""What is shown of a build."""

from __future__ import annotations

import pytest

from sublet.cli.building import WIDTH, Steps
from sublet.cli.output import Progress

STEPS = ("STEP 1/3: FROM debian:bookworm", "STEP 2/3: RUN make")


def test_of_a_build_the_steps_are_shown() -> None:
    steps = Steps()
    lines = ["Building it", *STEPS, "cc -c a.c", "STEP 3/3: CMD a", "COMMIT", "Packing the image"]
    found = [steps.shown(line) for line in [*lines, "STEP 1/1: FROM x", "said", "more"]]
    shown = ["Building it", *STEPS, "Packing the image", "STEP 1/1: FROM x"]
    assert list(filter(None, found)) == shown
    assert steps.failed() == ["STEP 1/1: FROM x", "said", "more"]
    long = steps.shown(f"[1/2] STEP 1/9: RUN {'x' * 200}")
    assert (len(long), long[-1]) == (WIDTH, "…")


def test_each_service_has_its_build() -> None:
    steps = Steps()
    for line in ("db: STEP 1/2: FROM a", "web: STEP 1/2: RUN b", "web: b says", "db: a says"):
        steps.shown(line)
    assert steps.shown("cache: healthy") == "cache: healthy"
    assert len(steps.failed()) == 4, "nobody tells which of them"
    assert steps.shown("web: Error: building at STEP") == ""
    assert steps.failed() == ["web: STEP 1/2: RUN b", "web: b says", "web: Error: building at STEP"]
    assert steps.shown("web: Packing the image into one file")
    assert steps.failed() == ["db: STEP 1/2: FROM a", "db: a says"]


def test_what_was_written_is_shown_when_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def build(failure: type[BaseException]) -> None:
        with Progress() as progress:
            for line in (*STEPS, "make: no rule"):
                progress(line)
            raise failure

    for failure, shown in ((ValueError, True), (KeyboardInterrupt, False)):
        with pytest.raises(failure):
            build(failure)
        lines = capsys.readouterr().err.splitlines()
        assert lines == [*STEPS, *((*STEPS, "make: no rule") if shown else ())]
    with Progress(keep=True) as progress:
        progress(STEPS[1])
        progress("make: fine")
    assert capsys.readouterr().err.splitlines() == [STEPS[1], "make: fine"]
