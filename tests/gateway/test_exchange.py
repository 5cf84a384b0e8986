"""What a request brings along: where it comes from, which conversation it belongs to."""

from __future__ import annotations

import uuid

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.http.exchange import address_of, call_of

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


@pytest.mark.parametrize(
    ("proxies", "told", "address"),
    [
        (set(), "192.0.2.7", "127.0.0.1"),
        ({"127.0.0.1"}, "192.0.2.7", "192.0.2.7"),
        ({"127.0.0.1"}, "6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ({"127.0.0.1"}, None, "127.0.0.1"),
        ({"10.0.0.1"}, "192.0.2.7", "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_is_believed_and_only_its_own_word(proxies, told, address):
    """What stands further left in X-Forwarded-For was written by the client."""
    request = make_mocked_request("GET", "/", headers={"X-Forwarded-For": told} if told else {})
    assert address_of(request.clone(remote="127.0.0.1"), frozenset(proxies)) == address


def test_what_is_missing_is_made_up_and_no_two_are_alike():
    made = [call_of({}) for _ in range(100)]
    assert len({call.correlation_id for call in made}) == len({call.traceparent for call in made}) == 100
    assert {(uuid.UUID(call.correlation_id).version, uuid.UUID(call.correlation_id).variant) for call in made} == {
        (4, uuid.RFC_4122)
    }
    assert all(len(call.traceparent) == 55 for call in made)


def test_a_trace_is_gone_on_with_in_a_new_span():
    call = call_of({"traceparent": TRACE, "tracestate": "a=1"})
    assert call.traceparent.startswith(TRACE[:36])
    assert call.traceparent.endswith("-01")
    assert call.traceparent != TRACE
    assert call.parent == TRACE.split("-")[2]
    assert call.tracestate == "a=1"


@pytest.mark.parametrize("state", ["caf\udce9", "a=" + "x" * 600])
def test_a_state_that_could_not_travel_is_left_out(state):
    """Bytes that are no UTF-8 come as half surrogates, of which the bus can make no header."""
    assert call_of({"traceparent": TRACE, "tracestate": state}).tracestate == ""


@pytest.mark.parametrize("trace", ["", "00-" + "0" * 32 + "-" + "cd" * 8 + "-01", TRACE[:-1], TRACE.upper(), "01" + TRACE[2:]])
def test_a_trace_that_is_none_begins_anew_without_its_state(trace):
    call = call_of({"traceparent": trace, "tracestate": "a=1"})
    assert call.traceparent[:36] != trace[:36]
    assert call.parent == ""
    assert call.tracestate == ""
