"""Old events go, up to a checkpoint; what is left is still vouched for, and nobody's work goes without a word."""

from __future__ import annotations

import dataclasses

import pytest

from actors.keeper import trim
from bus import streams
from bus.streams import ensure_consumer
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
