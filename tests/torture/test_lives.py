"""The checker finds what is planted among events: lost ones, invented ones, holes in the log, two lives at once, old epochs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.torture.history import Asked, Execution, History, Logged, Told
from gateway.torture.lives import HANDLED_S, check_events, check_lives
from gateway.torture.verdict import judge

SAID = "vx11.events.torture.said"


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(number: int = 20) -> History:
    """Events one second apart, each handled soon; their numbers in the log begin at 1."""
    told = [Told(n, float(n), "ok", n + 0.01, n + 1) for n in range(number)]
    handled = [Execution(n, "i", n + 0.05, actor="scribe") for n in range(number)]
    log = [Logged(n + 1, SAID, n + 0.005, {"n": n}) for n in range(number)]
    return History(told=told, handled=handled, log=log)


def power(*facts: tuple[str, str, float], epochs: tuple[int, ...] = ()) -> list[Logged]:
    """A log of power events of echo: fact, run and when."""
    log = []
    for i, (fact, run, at) in enumerate(facts):
        body = {"active": {"at": stamp(at)}, "slept": {"left": at}, "exited": {"ended": at}}.get(fact, {})
        epoch = {"epoch": epochs[i]} if epochs else {}
        log.append(Logged(i + 1, f"vx11.events.power.{fact}.echo", at + 0.001, {"run": run, **body, **epoch}))
    return log


def test_clean_events_hold():
    found = check_events(clean())
    assert (found.published, found.acked, found.handled, found.log) == (20, 20, 20, 20)
    assert (found.lost, found.not_stored, found.unknown, found.handled_again, found.broken) == (0, 0, 0, 0, [])


def test_an_acknowledged_event_that_nobody_handled_is_found():
    history = clean()
    del history.handled[7]
    assert check_events(history).broken == ["1 acknowledged events were never handled (first: number 7)"]
    assert judge(history).broken == check_events(history).broken


def test_an_event_that_was_not_acknowledged_may_be_handled_or_not():
    history = clean()
    history.told[7].outcome = history.told[8].outcome = "timeout"
    history.told[9].outcome = ""
    del history.handled[7]
    found = check_events(history)
    assert (found.acked, found.handled, found.broken) == (17, 17, [])


def test_an_event_may_be_handled_again_and_is_counted():
    history = clean()
    history.handled += [Execution(3, "j", 9.0), Execution(3, "k", 10.0)]
    found = check_events(history)
    assert (found.handled_again, found.broken) == (2, [])


def test_an_event_from_nowhere_is_found():
    history = clean()
    history.handled.append(Execution(99, "j", 9.0))
    assert check_events(history).broken == ["1 events were handled that nobody published (first: number 99)"]


def test_an_acknowledged_event_that_the_log_has_lost_is_found():
    """Something else stands under its number: the acknowledgement was a lie, or the log was cut and grew again."""
    history = clean()
    history.log[4].body = {"n": 55}
    assert check_events(history).broken == ["1 acknowledged events are not in the log (first: number 4)"]


def test_a_hole_in_the_log_is_found():
    history = clean()
    del history.log[4]
    found = check_events(history)
    assert found.not_stored == 1
    assert "the event log jumps 1 time(s) (first: to 6)" in found.broken


def test_of_a_history_that_breaks_off_only_what_had_time_enough_is_judged():
    history = clean()
    history.end = None
    del history.handled[2:]
    assert check_events(history).broken == []
    history.asked = [Asked(0, "plain", HANDLED_S + 4.5)]
    assert check_events(history).broken == ["3 acknowledged events were never handled (first: number 2)"]


def test_one_life_after_the_other_is_right():
    facts = [("active", "a", 1.0), ("slept", "a", 2.0), ("exited", "a", 2.1), ("active", "b", 2.05), ("exited", "b", 3.0)]
    assert check_lives(power(*facts, ("active", "c", 3.1), ("active", "c", 4.0))) == []


@pytest.mark.parametrize("end", ["slept", "exited"])
def test_two_active_instances_at_once_are_found(end):
    [sentence] = check_lives(power(("active", "a", 1.0), ("active", "b", 1.5), (end, "a", 2.0)))
    assert sentence == "echo b was active at 1.500 while a lived until 2.000"


def test_an_instance_that_nobody_saw_end_before_the_next_is_found():
    [sentence] = check_lives(power(("active", "a", 1.0), ("active", "b", 2.0)))
    assert sentence == "echo b became active, but a was never told to have ended"
    assert judge(History(log=power(("active", "a", 1.0), ("active", "b", 2.0)))).broken == [
        f"two instances at once, 1 time(s): {sentence}"
    ]


def test_the_end_of_an_instance_whose_host_died_is_when_the_next_host_says_so():
    log = power(("active", "a", 1.0), ("exited", "a", 0.0), ("active", "b", 2.5))
    log[1].at = 2.0
    assert check_lives(log) == []


def test_an_epoch_that_goes_back_is_found():
    facts = [("activate", "", 1.0), ("active", "a", 1.1), ("exited", "a", 1.2), ("activate", "", 2.0)]
    assert check_lives(power(*facts, epochs=(1, 1, 1, 2))) == []
    assert check_lives(power(*facts, epochs=(2, 2, 2, 1))) == ["the epoch of echo went back from 2 to 1 at number 4 of the log"]
