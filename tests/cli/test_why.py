"""`vx11 why`, `events` and `top`: what is asked, how it is shown, and what is said of what cannot be."""

from __future__ import annotations

import json

import pytest

from bus.eventlog import Stored
from bus.wire import Msg
from gateway.cli.events import Wanted, document_of, moment_of, subject_of
from gateway.cli.process import Seen
from gateway.cli.top import Ears, Traffic, percentile, rows_of
from gateway.http.lines import line_of
from schemas.errors import Failure
from schemas.madre import ActorList, ActorStatus, Explanation, Step

C = "0123456789abcdef"
TOLD = Explanation(
    actor="switch",
    state="dormant",
    sentence="switch is dormant: asleep.",
    transitions=[],
    steps=[
        Step(sequence=3, at="2026-01-02T03:04:05.678Z", what="active", cause="request", reason="a request for chat", by="cli",
             took_ms=8.2, correlation_id=C),
        Step(sequence=4, at="2026-01-02T03:04:06.678Z", what="crashed", cause="crash", reason="its process ended with -9"),
        Step(sequence=5, at="2026-01-02T03:04:07.678Z", what="dormant", explained=False, reason="the cause is unknown"),
    ],
)  # fmt: skip


class TestWhy:
    def test_each_change_says_what_why_by_whom_how_long_and_in_which_conversation(self, terminal, remote) -> None:
        remote.answers["vx11.madre.explain"] = TOLD.model_dump(mode="json")
        lines = terminal("why", "switch", "-n", "3").out.splitlines()
        assert remote.asked == [("vx11.madre.explain", {"name": "switch", "limit": 3})]
        assert lines[0] == "switch is dormant: asleep."
        woke, crashed, slept = lines[3:]
        assert all(part in woke for part in ("● active", "8 ms", "a request for chat, asked by cli", C))
        assert "✖ crashed" in crashed
        assert "its process ended with -9" in crashed
        assert "? the cause is unknown" in slept

    def test_programs_get_the_reply_as_it_is(self, terminal, remote) -> None:
        remote.answers["vx11.madre.explain"] = TOLD.model_dump(mode="json")
        assert terminal("why", "switch", "--json").document == TOLD.model_dump(mode="json")

    def test_an_actor_that_does_not_exist_is_an_error(self, terminal, remote) -> None:
        remote.answers["vx11.madre.explain"] = Failure("not_found", "there is no actor 'x'; there are: switch")
        ran = terminal("why", "x")
        assert ran.code == 66
        assert "there are: switch" in ran.err


def message(subject: str, data: bytes) -> Msg:
    return Msg(subject, "", data, None)


class TestSubject:
    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("", ">"),
            (">", ">"),
            ("power.*.switch", "vx11.events.power.*.switch"),
            ("vx11.events.shop.>", "vx11.events.shop.>"),
        ],
    )
    def test_the_prefix_need_not_be_typed(self, typed, meant) -> None:
        assert subject_of(typed) == meant

    @pytest.mark.parametrize("typed", ["a..b", "a b", ">.a", ".", "a.>.b"])
    def test_what_is_no_subject_is_told_how_one_looks(self, typed) -> None:
        with pytest.raises(Failure, match=r"power\.\*\.switch"):
            subject_of(typed)


class TestMoment:
    def test_a_duration_goes_back_from_now_and_a_moment_is_itself(self) -> None:
        assert moment_of("10m", now=1_000.0) == 400.0
        assert moment_of("1970-01-01T00:01:00Z") == moment_of("1970-01-01T00:01:00") == 60.0
        assert moment_of("") == 0.0

    @pytest.mark.parametrize("typed", ["yesterday", "2026-13-01T00:00:00Z"])
    def test_what_is_none_is_told_how_one_looks(self, typed) -> None:
        with pytest.raises(Failure, match="write for instance 10m"):
            moment_of(typed)


def stored(subject: str = "vx11.events.power.denied.switch", **told: object) -> Stored:
    body = json.dumps({"actor": "switch", "reason": "its gate is closed", **told}).encode()
    return Stored(7, subject, 1_000.0, {"correlation_id": C}, body)


class TestFilter:
    @pytest.mark.parametrize(
        "wanted",
        [
            Wanted(),
            Wanted(actor="switch"),
            Wanted(severity="warning"),
            Wanted(severity="info"),
            Wanted(correlation=C),
            Wanted(since=999.0),
        ],
    )
    def test_what_fits_is_shown(self, wanted) -> None:
        assert wanted.keeps(line_of(stored()), 1_000.0)

    @pytest.mark.parametrize(
        "wanted", [Wanted(actor="madre"), Wanted(severity="error"), Wanted(correlation="x"), Wanted(since=1_001.0)]
    )
    def test_what_does_not_fit_is_not(self, wanted) -> None:
        assert not wanted.keeps(line_of(stored()), 1_000.0)

    def test_programs_get_the_subject_and_the_whole_event(self) -> None:
        document = document_of(stored(), line_of(stored()))
        assert (document["id"], document["subject"]) == (7, "vx11.events.power.denied.switch")
        assert document["payload"]["reason"] == "its gate is closed"

    def test_events_need_the_bus(self, terminal) -> None:
        ran = terminal("events")
        assert ran.code == 65
        assert "reads the bus of this machine" in ran.err


class TestTop:
    def test_what_is_heard_is_counted_once_and_garbage_is_not(self) -> None:
        ears = Ears()
        for took, code in ((1.0, "ok"), (3.0, "timeout")):
            ears.heard_call(message("vx11.calls.switch.chat", json.dumps({"took_ms": took, "code": code}).encode()))
        for body in (b"\xff", b"[]", b'{"took_ms": "much"}'):
            ears.heard_call(message("vx11.calls.switch.chat", body))
        for shed in (5, 9):
            ears.heard_beat(message("vx11.hb.switch.r", json.dumps({"run": "r", "shed": shed}).encode()))
        traffic, lasted = ears.take()
        assert traffic == {"switch": Traffic([1.0, 3.0], errors=1, shed=4)}
        assert lasted > 0
        assert ears.take()[0] == {}

    def test_percentiles_are_values_that_were_seen(self) -> None:
        values = [float(n) for n in range(1, 101)]
        assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)
        assert percentile([], 0.5) is None

    def test_the_busiest_comes_first_and_a_sleeper_costs_nothing(self) -> None:
        listed = ActorList(
            actors=[
                ActorStatus(name="ears", state="dormant"),
                ActorStatus(name="switch", state="active", pid=7, wakes=2, last_wake_ms=8.0, in_flight=1, held=3),
            ],
            policy="solo_madre",
            mode="solo_madre",
            windows=[],
        )
        before = {7: Seen("switch", 7, 1, 1, 1_000, "pss", 1.0, 9.0)}
        seen = {7: Seen("switch", 7, 1, 1, 2_000, "pss", 1.5, 11.0)}
        switch, ears = rows_of(listed, {"switch": Traffic([1.0] * 10)}, 2.0, before, seen)
        assert (switch.actor, switch.rate, switch.p50_ms, switch.held, switch.in_flight) == ("switch", 5.0, 1.0, 3, 1)
        assert (switch.memory_bytes, switch.cpu_percent) == (2_000, 25.0)
        assert (ears.rate, ears.p99_ms, ears.memory_bytes, ears.cpu_percent) == (0.0, None, None, None)

    def test_top_needs_the_bus(self, terminal) -> None:
        ran = terminal("top", "--once")
        assert ran.code == 65
        assert "vx11 status" in ran.err
