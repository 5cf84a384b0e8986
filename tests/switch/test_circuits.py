"""Who fails too often is left alone for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.switch.asking.patience import Limits
from tests.switch.scripted import (
    cuts_after,
    refuses,
    says,
    stays_silent,
)
from tests.switch.staging import stage


async def test_after_three_failures_a_provider_is_not_asked(tmp_path: Path) -> None:
    async with stage(tmp_path, refuses(500), says("Hi")) as on:
        for _ in range(5):
            assert (await on.reply()).provider == "p1"
        assert on.asked == [3, 5]
        assert len(on.failures) == 3
        assert (await on.status())["p0"].circuit == "open"
        assert "p0: not asked, it has failed too often and rests" in (await on.reply()).reason


async def test_after_half_a_minute_one_probe_is_sent_and_closes_the_circuit(tmp_path: Path) -> None:
    async with stage(tmp_path, [refuses(500)] * 3 + [says("back")], says("Hi")) as on:
        for _ in range(3):
            await on.reply()
        on.time[0] += 29.9
        assert (await on.reply()).provider == "p1"
        on.time[0] += 0.1
        assert (await on.status())["p0"].circuit == "half_open"
        assert (await on.reply()).text == "back"
        assert (await on.status())["p0"].circuit == "closed"


async def test_while_the_probe_is_out_others_do_not_wait_for_it(tmp_path: Path) -> None:
    async with stage(tmp_path, [refuses(500)] * 3 + [stays_silent], says("Hi"), limits=Limits()) as on:
        for _ in range(3):
            await on.reply()
        on.time[0] += 30
        probe = asyncio.create_task(on.reply())
        await on.servers[0].requests(4)
        assert (await on.reply()).provider == "p1"
        assert on.asked[0] == 4
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)


async def test_a_probe_whose_caller_went_away_is_not_the_last(tmp_path: Path) -> None:
    async with stage(tmp_path, [refuses(500)] * 3 + [stays_silent, says("back")], says("Hi"), limits=Limits()) as on:
        for _ in range(3):
            await on.reply()
        on.time[0] += 30
        probe = asyncio.create_task(on.reply())
        await on.servers[0].requests(4)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert (await on.reply()).text == "back"


async def test_a_stream_that_is_always_cut_opens_the_circuit_too(tmp_path: Path) -> None:
    """A provider whose every answer breaks has begun three times, and answered never."""
    async with stage(tmp_path, cuts_after("Hello")) as on:
        for _ in range(3):
            await on.failure()
        failure = await on.failure()
        assert on.asked == [3]
    assert failure.code == "unavailable"


async def test_the_callers_mistakes_do_not_open_it(tmp_path: Path) -> None:
    async with stage(tmp_path, [refuses(400)] * 5 + [says("Hi")]) as on:
        for _ in range(5):
            await on.failure()
        assert (await on.reply()).text == "Hi"


async def test_retry_after_is_respected_and_passed_on(tmp_path: Path) -> None:
    async with stage(tmp_path, [refuses(429, Retry_After="7"), says("Hi")]) as on:
        assert (await on.failure()).details["retry_after"] == 7
        on.time[0] += 6.9
        assert (await on.failure()).code == "unavailable"
        assert on.asked == [1]
        on.time[0] += 0.1
        assert (await on.reply()).text == "Hi"
