"""Messages become spans once their trace is quiet, each span leaves once, and a ratio takes whole traces."""

from __future__ import annotations

import json
from random import Random

import pytest

from bus.eventlog import Stored
from bus.gather import Gathering
from bus.measures import BOUNDS_S, SERIES_MOST, Tally, measures_of
from bus.sampling import Sampler, Unusable
from bus.settings import Settings
from bus.tree import MISSING
from tests.bus.test_spans import HANDLED, ROOT, TRACE, WOKEN, record

OFTEN = 5_000


def sampler(tmp_path, **variables: str) -> Sampler:
    return Sampler.of(Settings(tmp_path, {f"OTEL_TRACES_{name}": value for name, value in variables.items()}))


@pytest.mark.parametrize(
    ("variables", "ratio", "follows"),
    [
        ({}, 1.0, True),
        ({"SAMPLER": "always_on"}, 1.0, False),
        ({"SAMPLER": "parentbased_always_off"}, 0.0, True),
        ({"SAMPLER": "traceidratio", "SAMPLER_ARG": "0.25"}, 0.25, False),
        ({"SAMPLER": "parentbased_traceidratio", "SAMPLER_ARG": "0.01"}, 0.01, True),
        ({"SAMPLER": "parentbased_traceidratio"}, 1.0, True),
        ({"SAMPLER": "always_on", "SAMPLER_ARG": "0.1"}, 1.0, False),
    ],
)
def test_the_standard_variables_are_understood(tmp_path, variables, ratio, follows):
    assert sampler(tmp_path, **variables) == Sampler(ratio, follows)


@pytest.mark.parametrize(
    "variables", [{"SAMPLER": "jaeger_remote"}, *({"SAMPLER": "traceidratio", "SAMPLER_ARG": a} for a in ("-1", "2", "x", "nan"))]
)
def test_what_cannot_be_is_refused_with_what_to_write(tmp_path, variables):
    with pytest.raises(Unusable, match="OTEL_TRACES_SAMPLER"):
        sampler(tmp_path, **variables)


def test_a_ratio_takes_its_part_and_a_larger_one_all_of_it():
    random = Random(3)
    traces = [f"{random.getrandbits(128):032x}" for _ in range(OFTEN)]
    few, more = ({trace for trace in traces if Sampler(ratio).takes(trace, None)} for ratio in (0.01, 0.1))
    assert few < more
    assert len(few) == pytest.approx(0.01 * OFTEN, rel=0.5)
    assert not any(Sampler(0.0).takes(trace, None) for trace in traces)
    assert all(Sampler(1.0).takes(trace, None) for trace in traces)


def test_it_decides_as_opentelemetrys_own_sampler():
    """A trace that another service exports must be the one that we export."""
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    random, theirs = Random(5), TraceIdRatioBased(0.3)
    for trace in (random.getrandbits(128) for _ in range(OFTEN)):
        assert theirs.should_sample(None, trace, "x").decision.is_sampled() == Sampler(0.3).takes(f"{trace:032x}", None)


def test_who_has_decided_at_the_door_is_followed_if_the_sampler_says_so():
    assert Sampler(0.0).takes(TRACE, True)
    assert not Sampler(1.0).takes(TRACE, False)
    assert Sampler(1.0, follows=False).takes(TRACE, False)


def gathered(messages: list[Stored], ratio: float = 1.0) -> Gathering:
    made = Gathering(Sampler(ratio), quiet_s=1.0, patience_s=100.0)
    for message in messages:
        made.add(message, 0.0)
    return made


def test_spans_leave_once_and_only_when_it_is_quiet():
    made = gathered(WOKEN)
    assert list(made.ready(0.9)) == []
    assert len(list(made.ready(1.1))) == 8
    assert list(made.ready(1.2)) == list(made.ready(50.0)) == list(made.ready(200.0)) == []


def test_a_span_waits_for_its_parent_which_may_be_at_work():
    """The record of a long handler comes last."""
    door, below = WOKEN[0], WOKEN[-2:]
    made = gathered(below)
    assert [span.name for span in made.ready(2.0)] == []
    made.add(door, 60.0)
    left = list(made.ready(62.0))
    assert {span.span_id for span in left} >= {ROOT, HANDLED}
    assert [span for span in left if MISSING in span.attributes] == []


def test_one_whose_parent_never_comes_says_so():
    made = gathered(WOKEN[-2:])
    left = list(made.ready(100.0))
    assert {span.name for span in left if MISSING in span.attributes} == {"process vx11.switch.chat", "held"}
    assert made.lacking == 2


def test_what_is_late_joins_what_has_left():
    made = gathered(WOKEN[:-2])
    assert "wake switch" in {span.name for span in made.ready(1.1)}
    made.add(WOKEN[-2], 50.0)
    late = {span.name: span for span in made.ready(52.0)}
    assert set(late) == {"process vx11.switch.chat", "held", "handed over"}


def test_it_remembers_no_more_than_it_must(monkeypatch):
    monkeypatch.setattr("bus.gather.PILED_MOST", 10)
    made = Gathering(Sampler())
    for number in range(50):
        trace = f"{number + 1:032x}"
        one = json.loads(WOKEN[-1].body) | {"traceparent": f"00-{trace}-{HANDLED}-02", "parent": ROOT}
        made.add(Stored(number, "vx11.calls.madre.chat", 0.0, {}, json.dumps(one).encode()), float(number))
    left = list(made.ready(49.0))
    assert len(left) == made.lacking == 40
    assert [span.trace_id for span in left] == [f"{number + 1:032x}" for number in range(40)], "the oldest first"


def test_where_to_read_on_is_told_by_what_waits():
    made = gathered([WOKEN[0]])
    assert made.first_waiting("VX11_CALLS") == 1
    assert made.first_waiting("VX11_EVENTS") == 0
    list(made.ready(2.0))
    assert made.first_waiting("VX11_CALLS") == 0


def test_what_is_not_sampled_is_counted_and_what_is_no_record_too():
    made = gathered([*WOKEN, Stored(9, "vx11.calls.x.y", 0.0, {}, b"garbage")], ratio=0.0)
    assert (list(made.ready(2.0)), made.unsampled, made.unreadable) == ([], len(WOKEN), 1)


def test_numbers_count_whatever_is_sampled():
    made = gathered([*WOKEN, record("vx11.switch.chat", HANDLED, ROOT, code="timeout", took_ms=80.0)], ratio=0.0)
    measures = {one.name: one for one in made.tally.measures()}
    spreads = {(one.labels["messaging.destination.name"], one.labels.get("error.type")): one for one in measures[
        "messaging.process.duration"
    ].spreads}  # fmt: skip
    slow = spreads["vx11.switch.chat", "timeout"]
    assert (slow.total, sum(slow.counts), slow.counts[BOUNDS_S.index(0.1)]) == (0.08, 1, 1)
    assert sum(value for _, value in measures["messaging.client.sent.messages"].values) == 3


def test_strangers_cannot_make_up_series_without_end():
    tally = Tally()
    for number in range(SERIES_MOST + 50):
        tally.stored(f"vx11.events.x.fact{number}")
    [sent] = tally.measures()
    assert len(sent.values) == SERIES_MOST + 1
    assert ({"messaging.system": "nats", "messaging.destination.name": "other"}, 50.0) in sent.values


def test_a_prometheus_histogram_becomes_one_of_opentelemetry():
    name = "vx11_http_request_duration_seconds"
    samples = [[f"{name}_bucket", below, {"route": "chat", "le": le}] for le, below in (("0.1", 3), ("1", 4), ("+Inf", 5))]
    samples += [[f"{name}_sum", 7.5, {"route": "chat"}], [f"{name}_count", 5, {"route": "chat"}]]
    families = [
        {"name": name, "kind": "histogram", "help": "x", "samples": samples},
        {"name": "vx11_up", "kind": "gauge", "help": "x", "samples": [["vx11_up", None, {}]]},
        {"name": "vx11_wakes_total", "kind": "counter", "help": "x", "samples": [["vx11_wakes_total", 2, {}]]},
    ]
    door, wakes = measures_of(families)
    [spread] = door.spreads
    assert (door.name, door.unit, spread) == (
        "http.server.request.duration",
        "s",
        ({"http.route": "chat"}, [0.1, 1.0], [3, 1, 1], 7.5),
    )
    assert (wakes.name, wakes.kind, wakes.values) == ("vx11_wakes", "counter", [({}, 2.0)])
