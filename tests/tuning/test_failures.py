"""When failures end a study."""

from __future__ import annotations

import pytest

from samtune.tuning.failures import Failures


def verdict(*ends: str) -> str:
    """What is said after these ends: `ok`, or the reason of a failure."""
    failures = Failures(most_in_a_row=4, greatest_share=0.5)
    for end in ends:
        failures.note("finished" if end == "ok" else "failed", end)
    return failures.verdict


OOM = [f"OutOfMemoryError: tried to allocate {n} MiB" for n in (20, 30, 40, 50, 60)]


def test_some_out_of_memory_among_many_finished_end_nothing() -> None:
    assert not verdict(*(["ok"] * 4 + OOM[:1]) * 5)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (("a", "b", "a", "a"), "3 of 4 trials failed in the same way: a"),
        (OOM[:3], "3 of 3 trials failed in the same way: OutOfMemoryError: tried to allocate N"),
        (("ok", "ok", "ok", "ok", "a", "b", "c", "d"), "4 trials failed in a row"),
        (("a", "b", "ok", "c", "ok", "d", "e"), "5 of 7 trials failed"),
    ],
)
def test_failures_that_are_most_of_what_happens_end_the_study(
    ends: tuple[str, ...], said: str
) -> None:
    assert verdict(*ends).startswith(said)
    assert not verdict(*ends[:2])


def test_a_success_in_between_begins_the_row_anew() -> None:
    assert not verdict("ok", "ok", "ok", "ok", "a", "b", "c", "ok", "d", "e")


def test_stopped_and_diverged_trials_are_no_failures() -> None:
    failures = Failures(most_in_a_row=1, greatest_share=0.1)
    failures.note("stopped", "")
    failures.note("diverged", "val_loss not finite")
    assert (failures.count, failures.verdict) == (0, "")
