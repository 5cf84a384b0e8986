"""The judge of these tests finds what is planted, and nothing where nothing is."""

from __future__ import annotations

import pytest

from tests.faults.load import ALLOWED, SILENCE, UNHARMED, Asked, Effect, broken, missing


def good() -> tuple[list[Asked], list[Effect]]:
    kinds = ("plain", "once", "again", "hasty")
    asked = [Asked(n, kind, "ok", answers=kind == "plain") for n, kind in enumerate(kinds)]
    return asked, [Effect(n, "a", float(n), n + 1.0) for n in range(len(kinds))]


def test_a_good_history_breaks_nothing() -> None:
    assert broken(*good(), UNHARMED) == []


@pytest.mark.parametrize(
    ("n", "outcome", "harmed"),
    [
        (0, "crashed", False),
        (0, SILENCE, False),
        (1, "crashed", False),
        (1, "timeout", True),
        (2, "crashed", True),
        (2, "waking", True),
    ],
)
def test_an_outcome_that_the_class_does_not_promise_is_found(n: int, outcome: str, *, harmed: bool) -> None:
    asked, done = good()
    asked[n].outcome = outcome
    assert broken(asked, done, ALLOWED if harmed else UNHARMED) == [f"{asked[n].kind} {n} ended with {outcome!r} "]


def test_a_second_effect_is_found_where_there_may_be_one() -> None:
    asked, done = good()
    assert broken(asked, [*done, Effect(3, "a", 3.5, 4.0)], ALLOWED) == ["hasty 3 was done 2 times"]
    assert broken(asked, [*done, Effect(2, "a", 3.5, 4.0)], ALLOWED) == []


def test_an_answer_without_its_effect_is_found() -> None:
    asked, done = good()
    assert broken(asked, done[1:], ALLOWED) == ["plain 0 was answered and never done"]


def test_an_effect_after_its_deadline_is_found() -> None:
    asked, done = good()
    done[1].deadline = 0.5
    assert broken(asked, done, ALLOWED) == ["once 1 was done after its deadline"]


def test_two_instances_at_once_are_found() -> None:
    asked, done = good()
    done[1].instance = done[3].instance = "b"
    [told] = broken(asked, done, ALLOWED)
    assert told.startswith("two instances at once")


def test_a_second_answer_without_harm_is_found() -> None:
    asked, done = good()
    asked[0].answers = 2
    assert broken(asked, done, UNHARMED) == ["plain 0 has 2 answers"]


def test_an_acknowledged_event_without_effect_is_missing() -> None:
    asked = [Asked(7, "event", "ok"), Asked(8, "event", "ok"), Asked(9, "event", "unavailable")]
    assert missing(asked, [Effect(8, "a", 1.0, 0.0)]) == [7]
