"""A thousand questions to providers that do everything wrong: each gets one whole answer, or one failure that says why.

Every world has two to four providers and asks one question after the other; its seed, printed when something is wrong,
makes it again. `VX11_LONG_SWITCH=1` asks a thousand questions, else it is 150.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from actors.switch.asking.patience import Limits
from schemas.errors import Failure
from schemas.switch import ModelReply, Speaker
from tests.switch import reciting
from tests.switch.reciting import MANNERS, PREFILLED, Manner, Recital, Trouble, after, prose, recites, refusing, whole
from tests.switch.scripted import Exchange, Script
from tests.switch.staging import Stage, stage

LONG = os.environ.get("VX11_LONG_SWITCH") == "1"
WORLDS, QUESTIONS = (100 if LONG else 15), 10
AT_ONCE = 15
"""Worlds."""
AT_ONCE_HERE = 3
"""Questions, when a world ends."""
LIMITS = Limits(connect=5.0, first_token=1.5, stall=1.5, tail=0.5)
"""Seconds. Every stall takes so long, and nothing else on a busy machine must."""
REST_S = 7
USAGE = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
CODES = {"crashed", "unavailable", "invalid", "over_budget"}

Outcome = Literal["answers", "breaks", "refuses"]
"""What a circuit makes of it: a success, a failure, or an answer though it helps nobody."""


@dataclass(frozen=True)
class Plan:
    """What a provider will do, if it is asked. `rest`: seconds that it asks for. `free`: nothing is to be paid."""

    name: str
    trouble: Trouble
    outcome: Outcome
    rest: float = 0.0
    free: bool = False
    usage: bool = False


def plans(rng: random.Random) -> Plan:
    """One of all things that a provider may do."""
    good = [
        Plan("whole", whole(USAGE), "answers", usage=True),
        Plan("uncounted", whole(), "answers"),
        Plan("halves", reciting.splits_characters, "answers"),
    ]
    refused = [
        Plan("500", refusing(500), "breaks"),
        Plan("429", refusing(429, Retry_After=str(REST_S)), "breaks", rest=REST_S, free=True),
        Plan("400", refusing(400), "refuses", free=True),
        Plan("401", refusing(401), "refuses", free=True),
    ]
    tokens = rng.choice([0, 1, 5, 5, 8])
    ends = ["cuts", "stalls", "ends_early", "breaks_json", "complains", "halves_a_character", "leaves_half_a_character"]
    broken = [Plan(f"{name} after {tokens}", after(tokens, getattr(reciting, name)), "breaks") for name in ends]
    broken += [Plan("refuses", _hangs_up, "breaks"), Plan("silent", after(0, reciting.stalls), "breaks")]
    endless = [Plan("never ends", after(tokens, reciting.never_ends), "breaks")]
    return rng.choice(rng.choices([good, refused, broken, endless], [36, 20, 42, 2])[0])


async def _hangs_up(exchange: Exchange, *_unused: object) -> None:
    exchange.cut()


@dataclass
class Oracle:
    """The circuit of one provider, from its specification: three failures in a row, half a minute, one probe."""

    failures: int = 0
    until: float | None = None

    def admits(self, now: float) -> bool:
        return self.until is None or now >= self.until

    def state(self, now: float) -> str:
        return "closed" if self.until is None else "half_open" if now >= self.until else "open"

    def asked(self, plan: Plan, now: float) -> None:
        """It was asked, and what it did was seen to its end."""
        if plan.outcome != "breaks":
            self.failures, self.until = 0, None
            return
        probe = self.until is not None
        self.failures += 1
        if probe or self.failures >= 3:
            self.until = now + max(30.0, plan.rest)
        elif plan.rest:
            self.until = now + plan.rest


@dataclass
class World:
    """Providers, each with its manner of going on, what it will do next, and the oracle of its circuit."""

    seed: int
    rng: random.Random = field(init=False)
    recital: Recital = field(init=False)
    manners: list[Manner] = field(init=False)
    prefill: list[bool] = field(init=False)
    plans: list[Plan] = field(default_factory=list)
    oracles: list[Oracle] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.recital = Recital(prose(self.rng))
        self.prefill = [self.rng.random() < 0.4 for _ in range(self.rng.randint(2, 4))]
        self.manners = [self.rng.choice(PREFILLED if prefill else MANNERS) for prefill in self.prefill]
        self.oracles = [Oracle() for _ in self.prefill]

    def script(self, n: int) -> Script:
        async def script(exchange: Exchange) -> None:
            plan = self.plans[n]
            await recites(self.recital, random.Random(self.rng.random()), self.manners[n], plan.trouble)(exchange)

        return script

    async def run(self, home: Path) -> None:
        lines = ["prefill = true" if prefill else "" for prefill in self.prefill]
        scripts = [self.script(n) for n in range(len(lines))]
        async with stage(home, *scripts, limits=LIMITS, lines=lines) as on:
            if self.rng.random() < 0.1:
                on.accounts.budgets = {"day": {"tokens": self.rng.choice([10_000, 40_000])}}
            for _ in range(QUESTIONS):
                on.time[0] += self.rng.choice([0.0, 1.0, 8.0, 31.0])
                await self.ask(on)
                await self.check_circuits(on)
            on.time[0] += self.rng.choice([0.0, 31.0])
            await self.burst(on)

    async def burst(self, on: Stage) -> None:
        """Some questions at once: what one of them learns of a provider holds for the others, and no answer is mixed up."""
        self.plans = [plans(self.rng) for _ in self.oracles]
        everybody = set(range(len(self.plans)))
        for text, end in await asyncio.gather(*(_heard(on, leaves=False) for _ in range(AT_ONCE_HERE))):
            assert isinstance(end, ModelReply | Failure)
            self.check_end(text, end, everybody, everybody)
        assert self.recital.wrong == []

    async def ask(self, on: Stage) -> None:
        """One question, and what must be true of its end."""
        self.plans = [plans(self.rng) for _ in self.oracles]
        now, before, paid = on.time[0], on.asked, len(on.accounts.answers)
        admitted = {n for n, oracle in enumerate(self.oracles) if oracle.admits(now)}
        leaves = self.rng.random() < 0.05
        text, end = await _heard(on, leaves=leaves)
        asked = {n for n, (a, b) in enumerate(zip(before, on.asked, strict=True)) if b > a}
        assert all(b - a <= 1 for a, b in zip(before, on.asked, strict=True)), "one question asks nobody twice"
        assert asked <= admitted, "somebody who rests was asked"
        speaker = end.provider if isinstance(end, Speaker) else ""
        for n in asked:
            if f"p{n}" != speaker:
                self.oracles[n].asked(self.plans[n], now)
        self.check_end(text, end, asked, admitted)
        self.check_paid(on, paid, asked, speaker)
        self.seen[type(end).__name__ if not isinstance(end, Failure) else end.code] += 1
        assert self.recital.wrong == []

    def check_end(self, text: str, end: object, asked: set[int], admitted: set[int]) -> None:
        """One whole answer, or one failure that says why."""
        if isinstance(end, ModelReply):
            assert text == end.text == self.recital.text
            assert sum(speaker.characters for speaker in end.speakers) == len(text)
        elif isinstance(end, Failure):
            assert end.code in CODES
            assert end.message
            endless = any(self.plans[n].name == "never ends" for n in asked)
            assert endless or self.recital.text.startswith(text)
            assert (end.code == "crashed") == bool(text)
            assert endless or end.code == "over_budget" or "has" in end.message or asked == admitted, (
                "somebody could have gone on"
            )

    def check_paid(self, on: Stage, paid: int, asked: set[int], left: str) -> None:
        """Everybody who was asked is paid, as was counted, but for those who did surely nothing."""
        told = {answer.provider: answer for answer in on.accounts.answers[paid:]}
        assert set(told) == {f"p{n}" for n in asked if not self.plans[n].free}
        for n in asked:
            plan, name = self.plans[n], f"p{n}"
            if not plan.free:
                counted = USAGE["total_tokens"] if plan.usage and name != left else None
                assert told[name].tokens == counted

    async def check_circuits(self, on: Stage) -> None:
        states = {name: one.circuit for name, one in (await on.status()).items()}
        assert states == {f"p{n}": oracle.state(on.time[0]) for n, oracle in enumerate(self.oracles)}


async def _heard(on: Stage, *, leaves: bool) -> tuple[str, object]:
    """The text as it was told, and how it ended. Who leaves does so at the first word."""
    text = []
    try:
        async with aclosing(on.ask()) as answer:
            async for part in answer:
                if isinstance(part, ModelReply):
                    return "".join(text), part
                text.append(part.text)
                if leaves:
                    return "".join(text), part.speaker
    except Failure as failure:
        return "".join(text), failure
    raise AssertionError("it ended without an end")


@pytest.mark.timeout(600 if LONG else 60)
async def test_a_thousand_questions_have_each_one_end(tmp_path: Path) -> None:
    """Nothing of the text is told twice or left out, whoever breaks wherever."""
    first = random.SystemRandom().randrange(10**9)
    begin = int(os.environ.get("VX11_SWITCH_SEED", first))
    worlds = [World(begin + n) for n in range(WORLDS)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(world: World) -> None:
        home = tmp_path / str(world.seed)
        home.mkdir()
        async with gate:
            try:
                await world.run(home)
            except Exception as wrong:
                what = [
                    (plan.name, manner, prefill)
                    for plan, manner, prefill in zip(world.plans, world.manners, world.prefill, strict=True)
                ]
                raise AssertionError(f"VX11_SWITCH_SEED={world.seed} makes it again: {what}") from wrong

    async with asyncio.TaskGroup() as group:
        for world in worlds:
            group.create_task(one(world))
    seen = sum((world.seen for world in worlds), Counter())
    sys.stdout.write(f"{sum(seen.values())} questions from seed {begin}: {dict(seen)}\n")
    assert seen["ModelReply"] > seen["crashed"] > 0
    assert seen["unavailable"] > 0


def test_the_oracle_knows_the_rules() -> None:
    """Else it would agree with everything."""
    oracle, breaks = Oracle(), Plan("500", refusing(500), "breaks")
    for _ in range(3):
        oracle.asked(breaks, 0.0)
    assert (oracle.admits(29.9), oracle.admits(30.0), oracle.state(30.0)) == (False, True, "half_open")
    oracle.asked(breaks, 30.0)
    assert oracle.state(59.9) == "open"
    oracle.asked(Plan("whole", whole(), "answers"), 60.0)
    assert oracle == Oracle()
