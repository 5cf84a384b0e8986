"""What a thousand declared actors cost madre while all of them sleep, against ten of them."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from bus.client import Bus
from gateway.torture.cycles import known
from gateway.torture.load import ECHO
from gateway.torture.system import System, scratch
from schemas.card import Card
from schemas.madre import GetActor, Register, Sleep
from tests.bench.numbers import Rounds
from tests.bench.process import cpu_s, pss_kib
from tests.bench.report import Claim, Figure

FEW, MANY = 10, 1_000
TEN, AGAIN, THOUSAND = f"{FEW} sleepers", "the same again", f"{MANY:,} sleepers"
ASK_S = 20.0
AT_ONCE = 16
"""Cards on their way to madre."""
ABOUT = f"""What {MANY:,} declared actors cost madre while all of them sleep, against {FEW}.
Three systems side by side, of {FEW}, {FEW} and {MANY:,} sleepers: cards (those of `echo`, under other names)
registered on the bus as a host does it; nothing is imported. One actor is woken and put to sleep in turns:
us_per_wake is madre's processor time for one such turn. While nothing happens: how often she runs, and her processor
time. kib_each: what her proportional memory grew by, for each sleeper beyond the first {FEW}."""


@dataclass(frozen=True)
class Size:
    rounds: int = 10
    wakes: int = 50
    """In a round, in each system."""
    idle_s: float = 15.0
    many: int = MANY


@dataclass
class House:
    """One of the three systems. `card`: what the cards of its sleepers are made from."""

    system: System
    bus: Bus
    host: Bus
    card: Card

    @property
    def madre(self) -> int:
        return self.system.pid("madre")

    async def declare(self, first: int, last: int) -> None:
        """Make sleepers known, named by their number."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(n: int) -> None:
            async with places:
                card = self.card.model_dump_json(by_alias=True).replace("vx11.echo.", f"vx11.sleeper{n}.")
                named = Card.model_validate_json(card).model_copy(update={"name": f"sleeper{n}"})
                await self.host.request(Register(card=named, host="bench"), timeout=ASK_S)

        await asyncio.gather(*(one(n) for n in range(first, last)))

    async def turns(self, number: int) -> float:
        """Microseconds of madre's processor time for one wake and the sleep after it."""
        before = cpu_s([self.madre])
        for _ in range(number):
            await self.bus.ask(ECHO, b"{}", timeout=ASK_S)
            await self.bus.request(Sleep(name="echo", reason="bench"), timeout=ASK_S)
        return 1e6 * (cpu_s([self.madre]) - before) / number


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure when something does not start or answer."""
    rounds = Rounds()
    with ExitStack() as stack:
        names = (TEN, AGAIN, THOUSAND)
        systems = {name: stack.enter_context(scratch(home / str(n))) for n, name in enumerate(names)}
        asyncio.run(_measured(systems, rounds, size))
    return Figure("sleepers", ABOUT, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    noise = {quantity: rounds.spread(quantity, TEN, AGAIN) for quantity in ("us_per_wake", "runs_per_s")}
    grown = rounds.median(THOUSAND, "kib_each")
    return [
        Claim("memory of a sleeper", grown, most=20.0, gross=100.0, unit="KiB"),
        Claim("processor time of a wake", rounds.ratio("us_per_wake", THOUSAND, TEN), noise["us_per_wake"], most=1.1, gross=3.0),
        Claim("runs while nothing happens", rounds.ratio("runs_per_s", THOUSAND, TEN), noise["runs_per_s"], most=1.5, gross=10.0),
    ]


async def _measured(systems: dict[str, System], rounds: Rounds, size: Size) -> None:
    async with AsyncExitStack() as stack:
        houses = {name: await _house(stack, system) for name, system in systems.items()}
        for house in houses.values():
            await house.declare(0, FEW)
            await house.turns(FEW)
        grown = pss_kib(houses[THOUSAND].madre)
        await houses[THOUSAND].declare(FEW, size.many)
        grown = pss_kib(houses[THOUSAND].madre) - grown
        rounds.add(THOUSAND, kib_each=grown / (size.many - FEW))
        for _ in range(size.rounds):
            for name in random.sample(list(houses), len(houses)):
                rounds.add(name, us_per_wake=await houses[name].turns(size.wakes))
        await _idle(houses, rounds, size.idle_s)


async def _house(stack: AsyncExitStack, system: System) -> House:
    async def connect(user: str) -> Bus:
        return await stack.enter_async_context(
            Bus.connect(system.url, user=user, seed=system.seed(user), name="bench", fast=True)
        )

    bus, host = await connect("client"), await connect("host")
    await known(bus)
    return House(system, bus, host, (await bus.request(GetActor(name="echo"), timeout=ASK_S)).card)


async def _idle(houses: dict[str, House], rounds: Rounds, seconds: float) -> None:
    def looked() -> dict[str, tuple[float, float]]:
        return {name: (cpu_s([h.madre]), psutil.Process(h.madre).num_ctx_switches().voluntary) for name, h in houses.items()}

    before = looked()
    await asyncio.sleep(seconds)
    for name, (cpu, runs) in looked().items():
        told = {"idle_cpu_percent": 100 * (cpu - before[name][0]) / seconds, "runs_per_s": (runs - before[name][1]) / seconds}
        rounds.add(name, **told)
