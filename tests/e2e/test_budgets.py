"""Budgets as their owner sees them: spent, shown to everybody without waking anybody, kept over sleep and kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.js.errors import KeyNotFoundError

from actors.switch.paying.budget import prompt_bound
from schemas.switch import Chat, ModelAnswered
from tests.e2e.command import Vx11
from tests.e2e.house import House, Reply, until
from tests.switch.scripted import Exchange, Script, Server, says

QUESTION = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
QUESTION_TOKENS = prompt_bound(Chat.model_validate(QUESTION))
USED = {"prompt_tokens": 7, "completion_tokens": 3}


async def hangs(exchange: Exchange) -> None:
    """Begins, and never ends."""
    await exchange.head()
    await exchange.say("and then")
    await exchange.hold()


@asynccontextmanager
async def paid(home: House, budgets: str, *scripts: Script) -> AsyncIterator[Server]:
    """A model that costs money, and budgets for it."""
    async with home.model(*scripts) as server:
        with (home.home / "providers.toml").open("a") as file:
            file.write(f"price_in = 2.0\nprice_out = 10.0\n{budgets}")
        yield server


async def ask(home: House, question: dict[str, Any] = QUESTION) -> Reply:
    return await home.post("/call/switch/chat", question)


async def days(home: House) -> list[dict[str, Any]]:
    shown = await home.get("/operator/api/usage?days=2")
    assert shown.status == 200, shown.text
    return list(shown.json["days"])


async def total(home: House) -> tuple[int, int, float]:
    """Of today and yesterday: it may be midnight."""
    found = [one["total"] for one in await days(home)]
    return sum(one["answers"] for one in found), sum(one["tokens"] for one in found), round(sum(one["money"] for one in found), 9)


async def so_far(home: House) -> tuple[int, int, float]:
    """All of it: on going to sleep everything is told."""
    await home.sleep("switch")
    return await total(home)


async def becomes(home: House, answers: int, tokens: int) -> None:
    async def told() -> bool:
        return (await total(home))[:2] == (answers, tokens)

    await until(told, f"{answers} answers and {tokens} tokens are shown")


async def test_what_was_spent_is_seen_by_everybody_and_wakes_nobody(home: House) -> None:
    async with paid(home, "[budgets]\nday = { money = 1 }\n", says("good", " day", usage=USED)):
        after = await home.last_event()
        before = await so_far(home)
        answered = await ask(home)
        assert answered.status == 200, answered.text
        await becomes(home, before[0] + 1, before[1] + 10)
        assert round((await total(home))[2] - before[2], 9) == 0.000044
        await home.sleep()

        [today, *_] = await days(home)
        [budget] = today["budgets"]
        assert (budget["budget"], budget["of"], budget["limit"]) == ("day", "money", 1.0)
        metrics = (await home.get("/metrics")).text
        assert 'vx11_model_tokens_total{provider="studio",model="tiny"}' in metrics
        assert 'vx11_model_budget_limit{budget="day",holder="",of="money"} 1' in metrics
        local = (await asyncio.to_thread(Vx11(home), "usage", "--days", "2", "--json")).json
        remote = Vx11(home, VX11_URL=home.door, VX11_TOKEN=home.token)
        assert (await asyncio.to_thread(remote, "usage", "--days", "2", "--json")).json["days"] == local["days"]
        assert "studio/tiny" in await asyncio.to_thread(Vx11(home), "usage")
        assert (await home.states())["switch"] == "dormant"

    told = [json.loads(one.body) for one in await home.events(after) if one.subject == ModelAnswered.subject]
    assert [(one["provider"], one["tokens"], one["billed"], one["money"]) for one in told] == [("studio", 10, 10, 0.000044)]


async def test_any_nats_client_reads_the_day_with_its_key_value_functions(home: House) -> None:
    """`nats kv get VX11_USAGE 2026-11-23`"""
    async with paid(home, "", says("hi", usage=USED)):
        before = await so_far(home)
        await ask(home)
        await becomes(home, before[0] + 1, before[1] + 10)
    [today, *_] = await days(home)
    async with home.stock() as client:
        bucket = await client.jetstream().key_value("VX11_USAGE")
        entry = await bucket.get(today["day"])
        assert json.loads(entry.value)["total"] == today["total"]
        with pytest.raises(KeyNotFoundError):
            await bucket.get("2020-01-01")


async def test_over_budget_says_whose_and_what_is_left_and_nobody_is_asked(home: House) -> None:
    async with paid(home, "[budgets]\nday = { tokens = 0 }\n", says("never", usage=USED)) as server:
        refused = await ask(home)
        assert (refused.status, refused.json["error"]) == (429, "over_budget")
        assert "of which 0 tokens are left" in refused.json["message"]
        assert refused.json["resets_at"].endswith("T00:00:00Z")
        chat = (await home.chat("hello")).json
        assert chat["fallback_source"] == "madre"
        assert "0 tokens are left" in chat["reason"]
        assert server.asked == []
        file = home.home / "providers.toml"
        file.write_text(file.read_text().replace("tokens = 0", "tokens = 1000000"))
        assert (await ask(home)).status == 200, "a budget that is changed counts at once"


async def test_when_the_money_is_spent_what_is_free_goes_on(home: House) -> None:
    async with paid(home, "[budgets]\nday = { money = 0 }\n", says("still here", usage=USED)) as server:
        assert (await ask(home)).status == 429
        with (home.home / "providers.toml").open("a") as file:
            file.write(f'[spare]\nurl = "{server.url}"\nmodel = "free"\n')
        answered = (await ask(home)).json
        assert (answered["provider"], answered["text"]) == ("spare", "still here")
        assert (await ask(home, QUESTION | {"model": "tiny"})).status == 429, "asked for by name nobody else answers in its place"


async def test_who_asks_at_the_same_time_cannot_spend_the_same_money(home: House) -> None:
    """Two reservations of 100 tokens of answer and the prompt fit; ten ask before one is answered."""
    used = (await so_far(home))[1]
    budget = f"[budgets]\nday = {{ tokens = {used + 2 * (QUESTION_TOKENS + 100)} }}\n"
    full = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await full.wait()
        await says("hi", usage=USED)(exchange)

    async with paid(home, budget, slowly) as server:
        asking = [asyncio.create_task(ask(home)) for _ in range(10)]
        try:
            await until(lambda: sum(one.done() for one in asking) == 8, "eight are refused")
        finally:
            full.set()
        statuses = sorted([answered.status for answered in await asyncio.gather(*asking)])
        assert statuses == [200] * 2 + [429] * 8
        assert len(server.asked) == 2


async def test_who_was_asked_when_switch_was_killed_is_paid_as_reserved_and_budgets_are_kept(home: House) -> None:
    """Nobody knows how much was generated; and sleep makes no budget new."""
    async with paid(home, "[budgets]\nday = { tokens = 1000000 }\n", hangs, says("hi", usage=USED)):
        before = await so_far(home)
        pid, killed = 0, False
        async with home.follow("POST", "/call/switch/chat", json=QUESTION) as events:
            async for event in events:
                killed = killed or pid != 0
                if event.data.get("text"):
                    pid = (await home.status("switch"))["pid"]
                    os.kill(pid, signal.SIGKILL)
        assert killed, "the end of the answer was told"
        assert (await ask(home)).status == 200
        await until(lambda: shown(home, before[0] + 2), "both answers are shown")
        answers, tokens, _ = await total(home)
        assert tokens - before[1] > 100 + 10, "the reservation of the one that was lost, and the other"
        await home.sleep("switch")
        assert (await ask(home)).status == 200
        await becomes(home, answers + 1, tokens + 10)


async def shown(home: House, answers: int) -> bool:
    return (await total(home))[0] == answers


async def test_a_damaged_file_is_said_and_mended_without_a_restart(home: House) -> None:
    async with paid(home, "", says("hi", usage=USED)) as server:
        await home.sleep("switch")
        file = home.home / "switch" / "switch.db"
        whole = file.read_bytes()
        file.write_bytes(b"garbage!" * 1_024)
        refused = await ask(home)
        assert refused.status == 503
        assert "no model is asked" in refused.json["message"]
        assert "switch.db" in refused.json["message"]
        chat = (await home.chat("hello")).json
        assert chat["fallback_source"] == "madre"
        assert "no model is asked" in chat["reason"]
        assert server.asked == []
        file.write_bytes(whole)

        async def answered() -> bool:
            return (await ask(home)).status == 200

        await until(answered, "the mended file is taken")
