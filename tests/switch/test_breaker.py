"""The circuit of a provider, with the time in the test's hands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.switch.choosing.breaker import OPEN_S, RETRY_AFTER_MAX_S, Circuit


def failing(circuit: Circuit, times: int, now: float = 0.0) -> Circuit:
    for _ in range(times):
        circuit = circuit.failed(now, probe=False)
    return circuit


def test_it_opens_after_three_failures_in_a_row() -> None:
    assert failing(Circuit(), 2).admits(0.0)
    assert failing(Circuit(), 3).state(0.0) == "open"
    assert not failing(Circuit(), 3).admits(OPEN_S - 0.001)


def test_an_answer_breaks_the_row() -> None:
    circuit = failing(failing(Circuit(), 2).answered(probe=False), 2)
    assert circuit.state(0.0) == "closed"


def test_after_half_a_minute_one_probe_may_try() -> None:
    circuit = failing(Circuit(), 3)
    assert circuit.state(OPEN_S) == "half_open"
    assert circuit.admits(OPEN_S)
    assert not circuit.entered(OPEN_S).admits(OPEN_S)


def test_a_probe_that_was_answered_closes_it() -> None:
    circuit = failing(Circuit(), 3).entered(OPEN_S).answered(probe=True)
    assert circuit == Circuit()


def test_a_probe_that_failed_opens_it_for_another_half_minute() -> None:
    circuit = failing(Circuit(), 3).entered(OPEN_S).failed(OPEN_S + 1, probe=True)
    assert circuit.state(OPEN_S + 30.9) == "open"
    assert circuit.admits(OPEN_S + 31)


def test_a_probe_whose_caller_went_away_gives_its_place_back() -> None:
    """Else nobody would ever try again."""
    circuit = failing(Circuit(), 3).entered(OPEN_S).released(probe=True)
    assert circuit.admits(OPEN_S)


def test_an_old_request_that_is_released_does_not_end_the_probe() -> None:
    circuit = failing(Circuit(), 3).entered(OPEN_S).released(probe=False)
    assert not circuit.admits(OPEN_S)


def test_an_answer_from_before_the_opening_does_not_close_it() -> None:
    assert failing(Circuit(), 3).answered(probe=False).state(1.0) == "open"


def test_late_failures_of_old_requests_do_not_prolong_it() -> None:
    assert failing(Circuit(), 3).failed(OPEN_S - 1, probe=False).admits(OPEN_S)


def test_retry_after_opens_at_once_and_for_as_long() -> None:
    circuit = Circuit().failed(100.0, probe=False, retry_after=7.0)
    assert not circuit.admits(106.9)
    assert circuit.admits(107.0)
    assert circuit.wait(101.0) == 6.0


def test_retry_after_is_respected_by_an_open_circuit_too() -> None:
    circuit = failing(Circuit(), 3).failed(20.0, probe=False, retry_after=60.0)
    assert circuit.state(79.0) == "open"
    assert circuit.state(80.0) == "half_open"


def test_a_short_retry_after_of_a_probe_does_not_shorten_the_rest() -> None:
    assert failing(Circuit(), 3).entered(30.0).failed(30.0, probe=True, retry_after=1.0).wait(30.0) == OPEN_S


def test_nobody_is_shut_out_for_longer_than_an_hour() -> None:
    assert Circuit().failed(0.0, probe=False, retry_after=1e9).wait(0.0) == RETRY_AFTER_MAX_S


moves = st.lists(st.tuples(st.sampled_from(["ask", "answer", "fail", "leave"]), st.floats(0, 20), st.integers(0, 5)), max_size=60)


@given(moves)
def test_never_more_than_one_probe_and_never_shut_for_ever(steps: list[tuple[str, float, int]]) -> None:
    """Whatever the interleaving: one probe at most, and an open circuit admits somebody again in time."""
    now, circuit, out = 0.0, Circuit(), []
    for move, seconds, which in steps:
        now += seconds
        if move == "ask":
            if circuit.admits(now):
                out.append(circuit.state(now) == "half_open")
                circuit = circuit.entered(now)
        elif out:
            probe = out.pop(which % len(out))
            if move == "answer":
                circuit = circuit.answered(probe=probe)
            elif move == "fail":
                circuit = circuit.failed(now, probe=probe)
            else:
                circuit = circuit.released(probe=probe)
        assert sum(out) <= 1
        assert circuit.probing == (sum(out) == 1)
        assert sum(out) or circuit.admits(now + OPEN_S)
