"""What follows when a broken log was accepted: the old chain says nothing any more, and no event goes for it."""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import Failure
from schemas.keeper import LogAccepted
from tests.keeper.archive import Archive, readable, records, sell, settled, until


async def cut(archive: Archive) -> None:
    """A log whose checkpoints reach beyond its end."""
    async with archive.checked(), archive.connect() as bus:
        await sell(bus, 60)
    archive.damage(lambda block: block[: records(block)[15][0]])


async def make_again(archive: Archive, events: int) -> None:
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.DELETE.VX11_EVENTS")
        await archive.make_streams()
        await sell(bus, events)


async def test_a_checkpoint_of_the_chain_that_was_given_up_is_not_one_of_the_new_chain(archive):
    """Its sequences are given again; compared with it the log would be broken for ever."""
    await cut(archive)
    async with archive.checked() as keeper:
        await keeper.accept("the disk was replaced", "ana")
        ledger = keeper.watch.ledger
        assert ledger.checkpoint_from(0) is None
        async with archive.connect() as bus:
            last = (await sell(bus, 80, start=1_000))[-1]
        await until(lambda: ledger.head >= last)
    async with archive.checked() as keeper:
        assert (await keeper.verify()).whole
        assert keeper.health() == {"state": "whole"}


async def test_what_was_trimmed_of_a_lost_stream_is_not_taken_from_the_new_one(archive):
    """Its sequences are those of events that are gone for good; what is there now is not due."""
    async with archive.checked() as keeper:
        async with archive.connect() as bus:
            await sell(bus, 35)
        ledger = keeper.watch.ledger
        await until(lambda: ledger.checkpoint_from(30))
        with keeper.watch.written():
            ledger.trim(ledger.checkpoint_from(30))
        await keeper._trimmer._purge(ledger.trimmed)
    await make_again(archive, 12)
    async with archive.connect() as bus:
        before = await readable(bus)
        async with archive.checked() as keeper:
            await keeper.accept("the server was set up anew", "ana")
            await keeper._round()
            assert before.items() <= (await readable(bus)).items()
            assert (await keeper.verify()).whole


async def test_two_who_accept_at_once_have_accepted_once(archive):
    """Else the log would say twice, with two reasons, what was done once."""
    await cut(archive)
    async with archive.checked() as keeper, archive.connect() as bus:
        done = await asyncio.gather(keeper.accept("a", "ana"), keeper.accept("b", "bo"), return_exceptions=True)
        refused = [one for one in done if isinstance(one, Failure)]
        assert [one.code for one in refused] == ["conflict"]
        await asyncio.gather(*keeper.watch._telling)
        told = [body for body in (await readable(bus)).values() if b'"reason":' in body and b'"by":' in body]
        assert len(told) == 1, LogAccepted.subject


async def test_a_comparison_that_was_under_way_finds_nothing_in_the_new_chain(archive, monkeypatch):
    await cut(archive)
    async with archive.checked() as keeper:
        watch = keeper.watch
        begun, go = asyncio.Event(), asyncio.Event()
        bounds = watch.log.bounds

        async def late() -> tuple[int, int]:
            found = await bounds()
            if not begun.is_set():
                begun.set()
                await go.wait()
            return found

        monkeypatch.setattr(watch.log, "bounds", late)
        verifying = asyncio.create_task(watch.verify())
        await begun.wait()
        await watch.accept("the disk was replaced", "ana")
        go.set()
        with pytest.raises(Failure, match="while it was compared"):
            await verifying
        await settled(keeper)
        assert watch.broken is None
