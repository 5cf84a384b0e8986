"""`vx11 why` explains every change of a morning in which everything happens that can wake, stop or end an actor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.log.morning import morning, play

SCRIPT = [
    ("waking", "request", "morning-request"),
    ("active", "request", "morning-request"),
    ("draining", "operator", "morning-sleep"),
    ("dormant", "operator", "morning-sleep"),
    ("waking", "event", "morning-event"),
    ("draining", "idle", None),
    ("dormant", "idle", None),
    ("denied", "gate", "morning-denied"),
    ("waking", "operator", "morning-wake"),
    ("active", "operator", "morning-wake"),
    ("crashed", "crash", ""),
    ("waking", "window", "morning-window"),
    ("draining", "window", "morning-close"),
    ("draining", "code", None),
    ("draining", "signal", None),
    ("waking", "operator", "morning-host"),
    ("crashed", "crash", ""),
    ("waking", "request", "morning-broken"),
    ("crashed", "crash", ""),
    ("failed", "crash", "morning-broken"),
    ("dormant", "crash", None),
    ("waking", "policy", "morning-full"),
    ("draining", "policy", "morning-solo"),
    ("waking", "operator", "morning-nats-server"),
    ("adopting", "server", None),
    ("active", "server", None),
    ("adopting", "madre", None),
    ("active", "madre", None),
]
"""In this order, with other steps between them. None: a conversation of its own."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    async def whole() -> dict[str, Any]:
        async with morning(tmp_path_factory.mktemp("morning")) as day:
            await play(day)
            return day.why()

    return asyncio.run(whole())


def find(steps: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    return next(step for step in steps if all(step[name] == value for name, value in wanted.items()))


def test_every_step_is_explained(told):
    assert len(told["steps"]) >= len(SCRIPT)
    assert [step for step in told["steps"] if not step["explained"] or not step["reason"] or not step["cause"]] == []


def test_everything_that_was_done_is_there_in_its_order_with_its_conversation(told):
    steps = iter(told["steps"])
    for what, cause, conversation in SCRIPT:
        for step in steps:
            fits = conversation is None or step["correlation_id"] == conversation
            if (step["what"], step["cause"]) == (what, cause) and fits:
                break
        else:
            pytest.fail(f"{what} by {cause} ({conversation}) is not told: {told['steps']}")


def test_it_says_what_was_asked_and_how_long_it_took(told):
    steps = told["steps"]
    woken = find(steps, what="active", cause="request")
    assert woken["about"] == "sort"
    assert woken["request_id"]
    assert 0 < woken["took_ms"] < 10_000
    assert find(steps, what="waking", cause="event")["about"] == "vx11.events.clerk.filed"
    assert "idle for" in find(steps, what="draining", cause="idle")["reason"]
    assert find(steps, what="draining", cause="operator")["reason"] == "enough for now"
    assert find(steps, what="dormant", cause="operator")["took_ms"] > 0


def test_it_ends_with_what_is(told):
    assert told["state"] == "active"
    assert told["steps"][-1]["what"] == "active"
