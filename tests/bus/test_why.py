"""Power events folded into steps: repeated and late ones count once, and what is not known is said to be so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus.eventlog import Stored
from bus.why import GONE, UNKNOWN, fold
from schemas.madre import Step

C = "conversation-1"


class Log:
    """Power events of one actor, a tenth of a second after each other."""

    def __init__(self) -> None:
        self.events: list[Stored] = []

    def add(self, fact: str, conversation: str = C, **told: Any) -> Log:
        number = len(self.events) + 1
        body = json.dumps({"actor": "a", **told}).encode()
        headers = {"correlation_id": conversation}
        self.events.append(Stored(number, f"vx11.events.power.{fact}.a", 1_000 + number / 10, headers, body))
        return self

    @property
    def steps(self) -> list[Step]:
        return fold(self.events)


@pytest.fixture
def log() -> Log:
    return Log()


def told(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.what, step.cause) for step in steps]


def asked(**more: Any) -> dict[str, Any]:
    return {
        "id": "a-1-1",
        "cause": "request",
        "by": "cli",
        "about": "sort",
        "request_id": "r1",
        "reason": "a request for sort",
    } | more


def test_a_wake_and_a_sleep_carry_their_causes_through(log):
    log.add("activate", **asked()).add("waking", id="a-1-1").add("active", "other", id="a-1-1", run="x")
    log.add("draining", "c-2", run="x", cause="idle", reason="idle for 3 s").add("slept", "other", run="x")
    log.add("exited", "other", run="x", clean=True, code=0)
    steps = log.steps
    assert told(steps) == [("waking", "request"), ("active", "request"), ("draining", "idle"), ("dormant", "idle")]
    assert [step.correlation_id for step in steps] == [C, C, "c-2", "c-2"]
    assert [step.took_ms for step in steps] == [None, 200.0, None, 100.0]
    assert (steps[1].by, steps[1].about, steps[1].request_id) == ("cli", "sort", "r1")
    assert steps[3].reason == "idle for 3 s"
    assert all(step.explained for step in steps)


def test_an_order_that_was_repeated_is_one_step(log):
    log.add("activate", **asked()).add("activate", **asked()).add("activate", **asked(id="a-1-2"))
    assert len(log.steps) == 2


def test_an_activation_that_is_not_in_the_log_any_more_is_said_to_be_unknown(log):
    step = log.add("active", id="a-1-1", run="x").steps[0]
    assert (step.explained, step.reason, step.took_ms) == (False, GONE, None)


def test_a_sleep_whose_drain_is_not_in_the_log_any_more_is_said_to_be_unknown(log):
    step = log.add("slept", run="x").steps[0]
    assert (step.explained, step.reason) == (False, GONE)


def test_an_order_that_does_not_say_why_is_said_to_be_unknown(log):
    """Events of an older version have no cause; their words are taken."""
    first, second = log.add("activate", id="a-1-1").add("activate", id="a-1-2", reason="because").steps
    assert (first.explained, first.reason) == (False, UNKNOWN)
    assert (second.explained, second.reason) == (True, "because")


def test_a_crash_is_one_step_however_often_it_is_told_and_belongs_to_no_conversation(log):
    log.add("activate", **asked()).add("active", id="a-1-1", run="x")
    for _ in range(3):
        log.add("exited", run="x", clean=False, code=-9, reason="its process ended with -9")
    crash = log.steps[-1]
    assert len(log.steps) == 3
    assert (crash.what, crash.cause, crash.reason, crash.correlation_id) == ("crashed", "crash", "its process ended with -9", "")


def test_a_sleep_whose_own_word_was_lost_is_told_by_its_exit(log):
    log.add("activate", **asked()).add("active", id="a-1-1", run="x").add("draining", run="x", cause="operator", reason="enough")
    log.add("exited", run="x", clean=True, code=0)
    assert told(log.steps)[-1] == ("dormant", "operator")


def test_who_was_not_the_first_to_claim_is_no_step(log):
    log.add("activate", **asked()).add("exited", run="y", clean=True, code=3).add("active", id="a-1-1", run="x")
    assert told(log.steps) == [("waking", "request"), ("active", "request")]


def test_who_was_called_back_says_by_whom(log):
    log.add("activate", **asked()).add("active", id="a-1-1", run="x").add(
        "draining", run="x", cause="idle", reason="idle for 3 s"
    )
    log.add("recalled", "c-3", run="x", cause="request", about="sort").add("active", run="x", stay=1)
    last = log.steps[-1]
    assert (last.what, last.cause, last.about, last.correlation_id) == ("active", "request", "sort", "c-3")
    assert len(log.steps) == 4


def test_who_was_asked_whether_it_lives_and_answered_was_awake_all_the_time(log):
    log.add("adopting", cause="server", reason="the bus was away").add("active", run="x", stay=1)
    assert told(log.steps) == [("adopting", "server"), ("active", "server")]


def test_what_a_stranger_has_put_there_is_passed_over(log):
    log.events.append(Stored(1, "vx11.events.power.activate.a", 1.0, {}, b"\xff no json"))
    log.events.append(Stored(2, "vx11.events.power.active.a", 1.0, {}, b"[1]"))
    log.events.append(Stored(3, "vx11.events.power.unheard_of.a", 1.0, {}, b"{}"))
    log.events.append(Stored(4, "vx11.events.power.activate.a", 1.0, {}, b'{"id": 7, "reason": ["x"], "cause": "made up"}'))
    assert [(step.what, step.explained) for step in log.steps] == [("waking", False)]
