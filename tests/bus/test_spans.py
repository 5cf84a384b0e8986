"""Spans from what the log says: the same messages give the same spans, and garbage gives none."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from bus.eventlog import Stored
from bus.moment import microseconds, rfc3339
from bus.origin import event_span, origin_of, plain_sequence
from bus.spans import Span, spans_of
from bus.tracing import missing
from bus.tree import MISSING, marked, orphans, tree

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ROOT, HANDLED, BELOW = "00f067aa0ba902b7", "a000000000000001", "a000000000000002"
NOW = 1_700_000_000.0
IDS = {"correlation_id": "conversation-1", "request_id": "r1", "caller": "gateway"}


def place(span: str, flags: str = "02") -> str:
    return f"00-{TRACE}-{span}-{flags}"


def record(subject: str, span: str, parent: str, at: float = 0.0, sequence: int = 1, **more: Any) -> Stored:
    document = IDS | {"traceparent": place(span), "parent": parent, "subject": subject, "instance": "run1"}
    document |= {"received_at": rfc3339(NOW + at, "microseconds"), "held_ms": 0, "took_ms": 2.5, "code": "ok"} | more
    return Stored(sequence, "vx11.calls." + subject.removeprefix("vx11."), NOW + at, {}, json.dumps(document).encode())


def power(fact: str, at: float, sequence: int, **more: Any) -> Stored:
    body = {"id": "switch-1-1", "run": "run1", "actor": "switch", "at": rfc3339(NOW + at), "reason": "a request for chat"}
    headers = {"correlation_id": "conversation-1", "traceparent": place(ROOT), "vx11-caller": "madre"}
    return Stored(sequence, f"vx11.events.power.{fact}.switch", NOW + at, headers, json.dumps(body | more).encode())


DOOR = {"http": {"method": "POST", "route": "/operator/api/chat", "status": 200}}
WAKE = [power("activate", 0.001, 1), power("waking", 0.004, 2), power("active", 0.010, 3)]
WOKEN = [
    record("vx11.tentaculo_link.chat", ROOT, "", took_ms=20, **DOOR),
    *WAKE,
    record("vx11.switch.chat", HANDLED, ROOT, 0.012, sequence=2, held_ms=11),
    record("vx11.madre.chat", BELOW, HANDLED, 0.013, sequence=3),
]


def named(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_a_call_is_a_span_with_the_very_ids_of_its_record():
    [span] = spans_of([record("vx11.switch.chat", HANDLED, ROOT, 1.0)])
    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, HANDLED, ROOT)
    assert (span.name, span.kind, span.conversation, span.service) == (
        "process vx11.switch.chat",
        "consumer",
        "conversation-1",
        "switch",
    )
    assert (span.start_us, span.took_ms, span.error) == (round((NOW + 1) * 1e6), 2.5, "")
    assert span.attributes["messaging.system"] == "nats"
    assert span.attributes["messaging.operation.type"] == "process"
    assert span.attributes["messaging.message.conversation_id"] == "conversation-1"


def test_a_wake_has_children_and_what_it_was_for():
    spans = named(spans_of(WOKEN))
    wake = spans["wake switch"]
    assert (wake.parent_id, wake.took_ms, wake.kind) == (ROOT, 9.0, "internal")
    assert {name: span.took_ms for name, span in spans.items() if span.parent_id == wake.span_id} == {
        "spawned": 3.0,
        "subscribed": 6.0,
        "held": 11.0,
        "handed over": 2.0,
    }
    assert wake.attributes["vx11.wake.reason"] == "a request for chat"


def test_the_order_of_the_messages_changes_nothing():
    """Two streams are read side by side, and the exporter reads them at another time than `vx11 trace`."""
    told = spans_of(WOKEN)
    for seed in range(20):
        mixed = list(WOKEN)
        random.Random(seed).shuffle(mixed)
        assert spans_of(mixed) == told
    assert spans_of([*WOKEN, *WOKEN]) == told, "nor does reading one twice"


def test_the_tree_goes_from_the_door_downwards():
    [root] = tree(spans_of(WOKEN))
    assert root.span.name == "POST /operator/api/chat"
    assert [branch.span.name for branch in root.below] == ["wake switch", "process vx11.switch.chat"]
    assert [branch.span.name for branch in root.below[1].below] == ["process vx11.madre.chat"]


def test_an_http_answer_is_an_error_when_it_is_the_servers():
    for status, code, error in ((404, "not_found", ""), (503, "unavailable", "unavailable")):
        [span] = spans_of([record("vx11.tentaculo_link.call", ROOT, "", code=code, http=DOOR["http"] | {"status": status})])
        assert (span.kind, span.error, span.attributes["error.type"]) == ("server", error, code)
        assert span.attributes["http.response.status_code"] == status


def test_what_madre_answered_for_a_sleeper_lasts_as_long_as_she_held_it():
    spans = named(spans_of([record("vx11.switch.chat", HANDLED, ROOT, instance="madre", held_ms=40, took_ms=0, code="waking")]))
    assert spans["process vx11.switch.chat"].took_ms == spans["held"].took_ms == 40.0
    assert spans["process vx11.switch.chat"].error == "waking"
    assert spans["held"].parent_id == ROOT, "there is no wake in this conversation"


def test_a_wake_that_nobody_answered_ends_with_the_next_one():
    again = [power("activate", 0.5, 4, id="switch-1-2"), power("failed", 0.9, 5, id="switch-1-2", reason="it is broken")]
    first, second = [span for span in spans_of([WAKE[0], *again]) if span.name == "wake switch"]
    assert (first.took_ms, first.error) == (499.0, "nobody started it in time")
    assert (second.took_ms, second.error) == (400.0, "it is broken")
    [open_] = spans_of(WAKE[:1])
    assert open_.open
    assert missing([open_], NOW, 0.0)[0] == "wake switch is not over"


def test_an_event_is_the_parent_of_its_handler_also_when_it_came_plain():
    plain = Stored(42, "vx11.events.shop.sold", NOW, {}, b"1")
    correlation, traceparent = origin_of("VX11_EVENTS", 42, {}, b"1")
    assert (correlation, plain_sequence(correlation)) == ("event-00000042", 42)
    parent = event_span("VX11_EVENTS", 42, traceparent)
    try_ = {"subject": "vx11.events.shop.sold", "stream": "VX11_EVENTS", "sequence": 42, "try": 2}
    told = {"correlation_id": correlation, "traceparent": traceparent[:36] + HANDLED + "-02", "event": try_, "code": "internal"}
    sent, handled = spans_of([plain, record("vx11.baker.heard", HANDLED, parent, 0.1, **told)])
    assert (sent.kind, sent.parent_id, sent.service, handled.parent_id) == ("producer", "", "shop", sent.span_id)
    assert (handled.name, handled.error) == ("process vx11.events.shop.sold", "internal")
    assert handled.attributes["messaging.consumer.group.name"] == "baker__heard"
    assert handled.attributes["vx11.event.try"] == 2


@pytest.mark.parametrize("text", ["", "event-", "event-x", "event-٣", "conversation-1"])
def test_another_id_is_no_plain_events(text):
    assert plain_sequence(text) == 0


@pytest.mark.parametrize("body", [b'{"correlation_id": "conversation-9"}', b'{"correlation_id": 7}', b'"correlation_id"', b"{"])
def test_an_event_may_have_its_id_inside(body):
    """As the keeper's index has it."""
    found, _ = origin_of("VX11_EVENTS", 1, None, body)
    assert found == ("conversation-9" if b"-9" in body else "event-00000001")


BROKEN = [
    b"",
    b"[]",
    b"{}",
    b"\xff",
    b"[" * 100_000,
    *(
        json.dumps(json.loads(WOKEN[0].body) | changed).encode()
        for changed in (
            {"traceparent": "00-x"},
            {"received_at": "today"},
            {"received_at": "2026-01-01T00:00:00"},
            {"held_ms": None},
            {"took_ms": "long"},
            {"subject": "x"},
            {"correlation_id": None},
            {"http": {"method": "GET"}},
            {"http": 7},
            {"event": {"sequence": "x"}},
        )
    ),
]


@pytest.mark.parametrize("body", BROKEN)
def test_a_record_that_is_none_has_no_span_and_harms_no_other(body):
    """Whoever has an actor's credentials can write what he likes."""
    [span] = spans_of([Stored(7, "vx11.calls.x.y", NOW, {}, body), record("vx11.switch.chat", HANDLED, ROOT)])
    assert span.span_id == HANDLED


@pytest.mark.parametrize("body", [b"", b"{", b'{"id": 1}', b'{"id": "a", "at": "2026-01-01T00:00:00"}', b'{"id": "", "at": "x"}'])
def test_a_power_event_that_cannot_be_read_is_an_event_like_others(body):
    [span] = spans_of([Stored(1, "vx11.events.power.active.switch", NOW, {}, body)])
    assert (span.kind, span.service) == ("producer", "madre")


def test_spans_that_are_above_each_other_are_shown_all_the_same():
    ring = [record("vx11.a.x", HANDLED, BELOW), record("vx11.b.x", BELOW, HANDLED, sequence=2)]
    roots = tree(spans_of(ring))
    assert roots
    assert len(roots) + sum(len(root.below) for root in roots) >= 2


def test_a_missing_parent_is_told_with_its_likely_reason():
    [lost] = spans = spans_of([record("vx11.switch.chat", HANDLED, "b" * 16)])
    assert orphans(spans) == [lost]
    assert marked(spans)[0].attributes[MISSING] is True
    assert "still under way" in missing(spans, NOW + 1, 0.0)[0]
    assert "shed" in missing(spans, NOW + 1_000, 0.0)[0]
    assert "older than the call records" in missing(spans, NOW + 1_000, NOW + 500)[0]


def test_a_clients_own_span_is_not_missed():
    stock = spans_of([record("vx11.switch.chat", HANDLED, "b" * 16, caller=""), *WAKE[:0]])
    door = spans_of([record("vx11.tentaculo_link.chat", HANDLED, "b" * 16, **DOOR)])
    assert orphans(stock) == orphans(door) == []


def test_moments_are_exact_to_the_microsecond():
    for us in (0, 1, 1_700_000_000_000_001, 1_799_999_999_999_999):
        assert microseconds(rfc3339(us / 1e6, "microseconds")) == us
