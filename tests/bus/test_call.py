"""The circumstances of a message: read from its headers, made up where they are missing, carried on by what it leads to."""

from __future__ import annotations

import pytest

from bus import call
from bus.call import Call, call_from, child_of, milliseconds, new_request_id, new_traceparent

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_plain_request_gets_a_conversation_and_a_trace_of_its_own():
    """`nats req` sends no header and is a first-class request."""
    first, second = call_from(None), call_from({})
    for made in (first, second):
        assert call.CORRELATION_FORM.fullmatch(made.correlation_id)
        assert call.TRACEPARENT_FORM.fullmatch(made.traceparent)
    assert first.correlation_id != second.correlation_id
    assert first.traceparent != second.traceparent
    assert (first.request_id, first.deadline, first.caller, first.path, first.passive) == ("", 0.0, "", "", False)


def test_what_the_headers_say_is_kept():
    headers = {
        "correlation_id": "conversation-1",
        "traceparent": TRACE,
        "tracestate": "a=b",
        "vx11-request-id": "r1",
        "vx11-deadline": "1700000000500",
        "vx11-caller": "switch",
        "vx11-scopes": "chat read",
        "vx11-path": "a,b",
        "vx11-passive": "1",
        "vx11-held-ms": "12",
    }
    made = call_from(headers)
    assert (made.correlation_id, made.tracestate) == ("conversation-1", "a=b")
    assert (made.request_id, made.deadline) == ("r1", 1_700_000_000.5)
    assert (made.caller, made.scopes, made.path) == ("switch", "chat read", "a,b")
    assert (made.passive, made.held_ms) == (True, 12)


def test_a_handling_is_a_span_of_its_own_below_the_one_that_has_asked():
    made = call_from({"traceparent": TRACE})
    assert made.parent == "00f067aa0ba902b7"
    assert (made.traceparent[:36], made.traceparent[52:]) == (TRACE[:36], TRACE[52:])
    assert made.traceparent != TRACE


def test_what_nobody_has_begun_has_no_parent():
    """A client in no span of its own makes up a trace; a span id in it that nobody records would be an orphan's parent."""
    made = call_from({"traceparent": new_traceparent()})
    assert made.parent == call_from(None).parent == ""
    assert call_from(made.headers()).parent == made.traceparent.split("-")[2]


def test_an_event_belongs_to_the_very_span_that_has_caused_it():
    assert call.conversation({"correlation_id": "conversation-1", "traceparent": TRACE, "vx11-path": "a"}) == {
        "correlation_id": "conversation-1",
        "traceparent": TRACE,
    }
    assert call_from(call.conversation(None)).parent == ""


@pytest.mark.parametrize("bad", ["", "short", "x" * 65, "with space in it", "ünïcödé-id", "a\nbcdefgh", "semi;colon"])
def test_a_correlation_id_of_another_form_is_replaced(bad):
    """It ends up in logs, in HTTP headers and in subjects of searches."""
    assert call_from({"correlation_id": bad}).correlation_id != bad


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        TRACE.upper(),
        TRACE[:-1],
        TRACE + "0",
        "01" + TRACE[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_a_traceparent_that_is_none_is_replaced_by_a_new_trace(bad):
    made = call_from({"traceparent": bad}).traceparent
    assert made != bad
    assert call.TRACEPARENT_FORM.fullmatch(made)


@pytest.mark.parametrize(
    ("text", "number"),
    [(None, 0), ("", 0), ("17", 17), ("-1", 0), ("1.5", 0), ("1e3", 0), ("²", 0), ("٣", 0), (" 1", 0), ("nan", 0)],
)
def test_a_number_in_a_header_is_read_or_is_nothing(text, number):
    """A strange deadline is no deadline and no crash."""
    assert milliseconds(text) == number


def test_what_is_sent_from_inside_carries_conversation_trace_and_path():
    headers = call_from({"correlation_id": "conversation-1", "traceparent": TRACE, "vx11-path": "a"}).headers(through="b")
    assert headers["correlation_id"] == "conversation-1"
    assert headers["vx11-path"] == "a,b"
    assert "tracestate" not in headers
    assert headers["traceparent"][:36] == TRACE[:36]
    assert call_from(headers).parent == headers["traceparent"].split("-")[2]


@pytest.mark.parametrize(("path", "through", "said"), [("", "", None), ("", "b", "b"), ("a", "", "a"), ("a,b", "c", "a,b,c")])
def test_the_path_names_who_was_on_it(path, through, said):
    assert Call("conversation-1", TRACE, path=path).headers(through=through).get("vx11-path") == said


def test_a_child_span_is_of_the_same_trace_with_the_same_flags():
    child = child_of(TRACE)
    assert call.TRACEPARENT_FORM.fullmatch(child)
    assert child != TRACE
    assert (child.split("-")[1], child[-2:]) == (TRACE.split("-")[1], "01")


def test_a_new_trace_is_random_and_not_yet_sampled():
    """The exporter decides, by the trace id, unless a client has decided before."""
    assert new_traceparent().endswith("-02")


def test_request_ids_differ():
    assert len({new_request_id() for _ in range(1_000)}) == 1_000
