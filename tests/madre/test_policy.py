"""Who may wake and who is kept awake: gates, windows, leases. Time is passed in."""

from __future__ import annotations

import pytest

from actors.madre.policy import KeepAwake, OpenedWindow, Policy, rfc3339
from schemas.errors import Failure

NOW = 1_000.0


def window(*services: str, ends: float | None = NOW + 60.0, id_: str = "w1") -> OpenedWindow:
    return OpenedWindow(id_, list(services), "test", NOW, ends, None if ends is None else ends - NOW)


def opened(*windows: OpenedWindow) -> Policy:
    return Policy(windows={w.window_id: w for w in windows})


@pytest.mark.parametrize(
    ("gate", "in_window", "allowed"),
    [
        ("on_demand", False, True),
        ("on_demand", True, True),
        ("window", False, False),
        ("window", True, True),
        ("closed", False, False),
        ("closed", True, False),
    ],
)
def test_the_gate_decides_who_may_wake(gate, in_window, allowed):
    policy = opened(window("switch" if in_window else "other"))
    policy.set_gate("switch", gate)
    assert policy.allowed("switch", NOW) is allowed


def test_without_a_word_an_actor_wakes_on_demand():
    assert Policy().gate("switch") == "on_demand"


def test_a_window_is_over_at_its_end():
    policy = opened(window("switch"))
    assert policy.in_window("switch", NOW + 59.9)
    assert not policy.in_window("switch", NOW + 60.0)


def test_a_window_that_is_held_has_no_end():
    policy = opened(window("switch", ends=None))
    assert policy.in_window("switch", NOW + 1e9)
    assert policy.next_end() is None


@pytest.mark.parametrize("kept", ["window", "lease", "full"])
def test_a_window_a_lease_and_the_policy_full_keep_awake(kept):
    policy = opened(*[window("switch")] if kept == "window" else [])
    policy.leases = {"l": KeepAwake("l", "switch", NOW + 60.0)} if kept == "lease" else {}
    policy.name = "full" if kept == "full" else "solo_madre"
    assert policy.kept_awake("switch", NOW)
    assert policy.kept_awake("other", NOW) is (kept == "full")
    assert policy.kept_awake("switch", NOW + 60.0) is (kept == "full")


def test_what_is_over_is_taken_out_once():
    policy = opened(window("switch"), window("hormiguero", ends=None, id_="w2"))
    policy.leases = {"l": KeepAwake("l", "switch", NOW + 60.0)}
    assert [w.window_id for w in policy.expired(NOW + 60.0)] == ["w1"]
    assert policy.expired(NOW + 60.0) == []
    assert (list(policy.windows), policy.leases) == (["w2"], {})


def test_the_next_end_is_the_earliest():
    assert opened(window("a", ends=NOW + 9.0), window("b", ends=NOW + 5.0, id_="w2")).next_end() == NOW + 5.0


def test_a_gate_that_the_environment_closed_is_pinned():
    policy = Policy.from_environment({"VX11_GATE_SWITCH": "closed"})
    with pytest.raises(Failure, match="conflict"):
        policy.set_gate("switch", "on_demand")
    assert policy.gate("switch") == "closed"
    assert policy.pinned("switch")


def test_what_was_set_goes_before_what_the_environment_says():
    policy = Policy.from_environment({"VX11_GATE_SWITCH": "window"})
    assert policy.gate("switch") == "window"
    policy.set_gate("switch", "on_demand")
    assert policy.gate("switch") == "on_demand"


def test_a_word_that_is_no_gate_is_refused_with_those_that_are():
    with pytest.raises(Failure, match="on_demand, window, closed"):
        Policy.from_environment({"VX11_GATE_SWITCH": "ajar"})


@pytest.mark.parametrize(
    ("windows", "awake", "mode"),
    [([], 0, "solo_madre"), ([], 2, "full"), ([window("a")], 0, "windowed"), ([window("a", ends=NOW)], 0, "solo_madre")],
)
def test_the_mode_says_what_is(windows, awake, mode):
    assert opened(*windows).mode(NOW, awake) == mode


def test_what_was_kept_is_taken_over_unless_it_is_over():
    policy = Policy()
    kept = {"services": ["switch"], "reason": "r", "created": NOW, "ttl_sec": 60.0}
    policy.load(
        {
            "policy": {"policy": "full"},
            "gate.switch": {"gate": "window"},
            "window.w1": {**kept, "ends": NOW + 60.0},
            "window.w2": {**kept, "ends": NOW - 1.0},
            "lease.l1": {"actor": "switch", "ends": NOW + 60.0},
            "lease.l2": {"actor": "switch", "ends": NOW - 1.0},
        },
        NOW,
    )
    assert (policy.name, policy.gates, list(policy.windows), list(policy.leases)) == (
        "full",
        {"switch": "window"},
        ["w1"],
        ["l1"],
    )


@pytest.mark.parametrize("document", [{}, {"gate": "ajar"}, {"gate": None}])
def test_what_cannot_be_understood_is_left_out_and_told(document, caplog: pytest.LogCaptureFixture):
    """One bad key must not keep madre from starting."""
    policy = Policy()
    policy.load({"gate.switch": document, "policy": {"policy": "full"}}, NOW)
    assert (policy.gates, policy.name) == ({}, "full")
    assert "gate.switch" in caplog.text


def test_a_window_is_shown_with_what_is_left_of_it():
    shown = window("switch").shown(NOW + 20.0)
    assert (shown.mode, shown.ttl_remaining_sec, shown.deadline) == ("ttl", 40.0, rfc3339(NOW + 60.0))
