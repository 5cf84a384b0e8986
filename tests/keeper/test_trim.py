"""Old events go, up to a checkpoint; what is left is still vouched for, and nobody's work goes without a word."""

from __future__ import annotations

import dataclasses

import pytest

from actors.keeper import trim
from actors.keeper.ledger import SCHEMA, Ledger
from actors.keeper.rules import Rules
from actors.keeper.signer import Signer
from bus import streams
from bus.moment import rfc3339
from bus.streams import ensure_consumer
from bus.vault import open_vault
from schemas.errors import Failure
from tests.keeper.archive import QUICK, SOLD, Archive, readable, sell, settled, until, until_true

AGED = dataclasses.replace(QUICK, keep_s=0.0)
"""Whatever is older than this moment goes."""
SMALL = 64 * 1024


async def firsts(archive: Archive) -> int:
    async with archive.connect() as bus:
        return (await trim.room_in(bus)).first


async def test_events_are_removed_at_their_age_and_the_rest_is_whole(archive):
    async with archive.connect() as bus:
        async with archive.checked():
            await sell(bus, 35)
        async with archive.checked(AGED) as keeper:
            await until(lambda: keeper.watch.ledger.trimmed >= 30)
            await until_true(lambda: moved(archive, 30))
            assert (await keeper.verify()).whole
    async with archive.checked() as keeper:
        state = await keeper.state()
        assert (state.state, state.genesis.sequence) == ("whole", state.trimmed_through)


async def test_the_log_tells_what_was_trimmed(archive):
    async with archive.connect() as bus:
        async with archive.checked():
            await sell(bus, 35)
        async with archive.checked(AGED) as keeper:

            async def told() -> bool:
                return any(b'"why":"age"' in body for body in (await readable(bus)).values())

            await until_true(told)
            await settled(keeper)


async def test_the_index_forgets_what_was_trimmed(archive):
    async with archive.connect() as bus:
        async with archive.checked():
            await sell(bus, 35)
        async with archive.checked(AGED) as keeper:
            await until_true(lambda: moved(archive, 30))
            left = await readable(bus)
            from schemas.keeper import Find

            found = await keeper.find(Find(correlation_id="conversation-1"))
            assert set(found.events) <= set(left)


async def test_what_a_durable_consumer_has_not_handled_is_not_removed_by_age(archive):
    async with archive.connect() as bus:
        async with archive.checked():
            await ensure_consumer(bus.api, streams.EVENTS, "shop__count", [SOLD], start=1)
            await sell(bus, 35)
        async with archive.checked(AGED) as keeper:
            await until(lambda: keeper.watch.ledger.head > 35)
            before = keeper.watch.ledger.trimmed
            assert before == 0
            await bus.api("$JS.API.CONSUMER.DELETE.VX11_EVENTS.shop__count")
            await until_true(lambda: moved(archive, 30))


async def test_a_stream_at_its_bound_has_room_again(archive):
    """Nothing that was acknowledged goes but the oldest, and what is left is whole. Also over many times its size."""
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.DELETE.VX11_EVENTS")
        await archive.make_streams(events_bytes=SMALL)
        sold = 0
        async with archive.checked() as keeper:
            while sold < 500:
                try:
                    await sell(bus, 1, start=sold, size=1_000)
                    sold += 1
                except Failure:  # storage_full
                    await until_true(lambda: room(bus))
            assert (await keeper.verify()).whole
            assert keeper.watch.ledger.trimmed > 400
        left = await readable(bus)
        assert sorted(left) == list(range(min(left), max(left) + 1))


async def test_a_nearly_full_stream_takes_a_consumers_work_and_says_so(archive):
    """Else a consumer that never comes back would stop everybody."""
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.DELETE.VX11_EVENTS")
        await archive.make_streams(events_bytes=SMALL)
        await ensure_consumer(bus.api, streams.EVENTS, "shop__count", [SOLD], start=1)
        async with archive.checked() as keeper:
            for n in range(120):
                try:
                    await sell(bus, 1, start=n, size=1_000)
                except Failure:
                    await until_true(lambda: room(bus))
            await until(lambda: keeper.watch.ledger.trimmed > 0)

            async def told() -> bool:
                return any(b'"unhandled":{"shop__count"' in body for body in (await readable(bus)).values())

            await until_true(told, "nobody was told")


@pytest.mark.parametrize("moment", ["chain", "purge"])
async def test_a_keeper_that_dies_while_it_trims_finishes_it_at_the_next_start(archive, monkeypatch, moment):
    """Before the purge the chain has its new beginning already; after it only what was written of the gone is left."""

    def die(name: str) -> None:
        if name == {"chain": "keeper.trimming", "purge": "keeper.trimmed"}[moment]:
            raise Failure("unavailable", "the process is gone")

    async with archive.connect() as bus:
        async with archive.checked():
            await sell(bus, 35)
        with monkeypatch.context() as patched:
            patched.setattr(trim.chaos, "point", die)
            async with archive.checked(AGED) as keeper:
                await until(lambda: keeper.watch.ledger.trimmed >= 30)
        async with archive.checked() as keeper:
            await until_true(lambda: moved(archive, 30))
            assert (await keeper.verify()).whole
            await until(lambda: keeper.watch.ledger.block(keeper.watch.ledger.trimmed) is None)


async def moved(archive: Archive, through: int) -> bool:
    return await firsts(archive) > through


async def room(bus) -> bool:
    return (await trim.room_in(bus)).share < 0.8


@pytest.fixture
def ledger(tmp_path):
    """A chain of 30 events with a checkpoint at every tenth."""
    vault = open_vault(tmp_path / "keeper.db", bytes(32), SCHEMA)
    kept = Ledger(vault)
    kept.begin(streams.EVENTS, 1, 0)
    kept.append(1, [bytes(32)] * 30)
    yield kept
    vault.close()


DAY_S = 86_400.0
NOW = 2_000_000_000.0
MONTH = Rules(keep_s=30 * DAY_S)


def planned(ledger: Ledger, *made_at: float) -> int:
    """Up to where events go, with checkpoints at 10, 20 and so on, made at these moments."""
    signer = Signer(bytes(32), streams.EVENTS)
    for number, at in enumerate(made_at, 1):
        ledger.sign(signer.sign(number, 10 * number, bytes(32).hex(), rfc3339(at)))
    found = trim.plan(ledger, MONTH, trim.Room(1, 30, 100, 1_000), {}, NOW)
    return found.through.sequence if found else 0


def test_all_that_is_of_age_goes(ledger):
    assert planned(ledger, NOW - 40 * DAY_S, NOW - 31 * DAY_S, NOW - 29 * DAY_S) == 20


def test_young_events_do_not_go_because_the_clock_was_behind_for_a_moment(ledger):
    """A machine without a battery begins in 1970, until somebody tells it the time."""
    assert planned(ledger, NOW - 2 * DAY_S, 0.0, NOW - DAY_S) == 0
    assert planned(ledger, NOW - 40 * DAY_S, NOW - 2 * DAY_S, 0.0) == 10


def test_a_clock_that_was_ahead_for_a_moment_keeps_nothing_for_good(ledger):
    assert planned(ledger, NOW + 4_000 * DAY_S, NOW - 31 * DAY_S, NOW - DAY_S) == 20
