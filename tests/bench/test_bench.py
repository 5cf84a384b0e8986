"""The figures in short: not whether they are good, which `make bench` says, but that nothing has broken down."""

from __future__ import annotations

import pytest

from tests.bench import durable, gateway, recording, relaying, replay, rest, routing, sleepers, thinking, wake


def sound(figure) -> bool:
    """Nothing is grossly broken, and the figure can be shown in both ways."""
    assert [claim for claim in figure.claims if claim.grossly_broken] == []
    assert figure.document()["claims"]
    assert list(figure.lines())
    return True


def test_the_gateway_keeps_up_with_a_bare_bridge(tmp_path):
    figure = gateway.measure(tmp_path / "home", gateway.Size(seconds=1.0, samples=1_000, slices=2, rounds=1, frameworks=False))
    assert sound(figure)
    assert figure.rounds.median(gateway.OURS, "us") > 0


@pytest.mark.parametrize("kind", [wake.FORKED, wake.PARKED])
def test_a_sleeper_is_there_long_before_a_program_has_started(wakes, kind):
    assert sound(wakes)
    assert wakes.rounds.median(kind, "p50_ms") * 4 < wakes.rounds.median(wake.COLD, "p50_ms")


@pytest.fixture(scope="module")
def wakes(tmp_path_factory):
    return wake.measure(tmp_path_factory.mktemp("wake") / "home", wake.Size(rounds=1, wakes=8, cold=2))


def test_a_hundred_sleepers_cost_little(tmp_path):
    assert sound(sleepers.measure(tmp_path, sleepers.Size(rounds=1, wakes=12, idle_s=5.0, many=100)))


def test_a_system_that_nobody_asks_rests(tmp_path):
    figure = rest.measure(tmp_path / "home", rest.Size(seconds=2.0))
    assert sound(figure)
    assert {"supervisor", "madre", "host", "zygote", "tentaculo_link", "nats-server", "redis"} <= {
        config for config, _ in figure.rounds.values
    }


def test_a_replay_is_no_slower_than_a_bare_loop_and_finds_the_right_events(tmp_path):
    figure = replay.measure(tmp_path / "home", replay.Size(rounds=3, events=1_500, paced=15))
    assert sound(figure)
    assert figure.rounds.median("selections", "wrong") == 0


def test_events_that_are_committed_together_beat_events_one_by_one(tmp_path):
    figure = durable.measure(tmp_path / "home", durable.Size(seconds=0.4, rounds=1, configs=durable.QUICK))
    assert sound(figure)
    assert figure.rounds.median(durable.OURS, "batch") > 20
    assert figure.rounds.median(durable.REFUSED, "repeated") > 0


def test_recording_costs_little_and_counts_what_it_sheds(tmp_path):
    size = recording.Size(seconds=0.5, samples=400, slices=1, rounds=1, settle_s=0.1)
    figure = recording.measure(tmp_path / "home", size)
    assert sound(figure)
    assert figure.rounds.median(recording.RECORDED, "unaccounted") == 0


def test_the_words_of_a_model_come_through_soon_and_whole(tmp_path):
    size = relaying.Size(pieces=20, answers=2, slices=1, rounds=1, whole=32_000, whole_each=1_000)
    figure = relaying.measure(tmp_path / "home", size)
    assert sound(figure)
    assert figure.rounds.median(relaying.OURS, "whole_lost") == 0


def test_a_decision_costs_hardly_more_than_its_embedding():
    figure = routing.measure(routing.Size(messages=20, rounds=1))
    assert sound(figure)
    assert figure.rounds.median(routing.LETTERS, "cpu_ms") * 4 < figure.rounds.median(routing.OURS, "cpu_ms")


def test_the_first_word_of_a_sleeping_model_comes_about_as_soon_as_from_a_bare_one(tmp_path, weights):
    assert sound(thinking.measure(tmp_path / "home", weights, thinking.Size(rounds=1, asks=1)))
