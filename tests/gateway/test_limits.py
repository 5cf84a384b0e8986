"""Limits by themselves: time is passed in, so nothing waits."""

from __future__ import annotations

import asyncio

import pytest

from bus.space import Reserve
from gateway.http import limits
from gateway.http.limits import Places, Rates, Streams
from gateway.http.observed import Observed
from schemas.errors import Failure
from tests.gateway.scripted import LIST, ScriptedBus, listed


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate():
    rates = Rates(rate=2.0, burst=3.0)
    assert [rates.wait("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rates.wait("a", 0.4) == pytest.approx(0.1)
    assert rates.wait("a", 0.5) == 0.0
    assert rates.wait("a", 0.5) == 0.5


def test_a_bucket_never_holds_more_than_its_burst():
    """Who was silent for a day may not ask a million times at once."""
    rates = Rates(rate=2.0, burst=3.0)
    rates.wait("a", 0.0)
    assert [rates.wait("a", 86_400.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_each_key_has_its_own_bucket_and_none_is_kept_for_ever(monkeypatch):
    monkeypatch.setattr(limits, "KEYS_MOST", 3)
    rates = Rates(rate=1.0, burst=1.0)
    for key in "abcd":
        assert rates.wait(key, 0.0) == 0.0
    assert rates.wait("d", 0.0) > 0
    assert rates.wait("a", 0.0) == 0.0  # the oldest was forgotten
    assert len(rates._buckets) == 3


def test_no_rate_is_no_limit():
    rates = Rates(rate=0.0, burst=1.0)
    assert {rates.wait("a", 0.0) for _ in range(1_000)} == {0.0}


async def test_places_are_given_back_once():
    places, task = Places(1), asyncio.current_task()
    places.enter(task)
    with pytest.raises(Failure, match="busy"):
        places.enter(task)
    places.leave(task)
    places.leave(task)
    assert places.taken == 0
    await asyncio.wait_for(places.emptied(), 1)


def test_streams_are_counted_for_each_caller_and_in_all():
    streams = Streams(most=3, each=2)
    with streams.one("a"), streams.one("a"):
        with pytest.raises(Failure, match="busy"), streams.one("a"):
            pass
        with streams.one("b"), pytest.raises(Failure, match="busy"), streams.one("c"):
            pass
    assert not streams.open


async def test_one_who_does_not_wait_any_longer_takes_the_look_from_nobody(tmp_path):
    """The look is shared: a client that leaves must not cancel it for the others."""
    seen = asyncio.Event()

    async def slowly():
        await seen.wait()
        return listed()

    bus = ScriptedBus({LIST: lambda _: slowly()})

    class Away:
        async def ping(self):
            raise Failure("unavailable", "no cache here")

    observed = Observed(bus, Away(), Reserve(tmp_path))
    impatient, patient = asyncio.create_task(observed.look()), asyncio.create_task(observed.look())
    while not bus.asked:
        await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    seen.set()
    assert (await patient).core["tentaculo_link"].state == "up"
    await observed.aclose()
