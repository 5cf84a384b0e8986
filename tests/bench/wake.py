"""From the activation of a sleeper to its first answer, against the cold start of a program that does the same with FastStream.

Timed is from hearing of the activation to the answer in a stock client's hands, and beside it what that client waits, from
publishing its request. The cold start is timed from starting the interpreter to the answer of a request that is sent as soon as
it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nats
import psutil
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from bus.client import Bus
from bus.supervisor import SERVICES
from bus.zygote import SPARE_DIED_S
from gateway.torture.cycles import known
from gateway.torture.storm import asleep
from gateway.torture.system import System, scratch
from tests.bench.numbers import Rounds, percentile
from tests.bench.process import Program, cpu_s, pss_kib, wait_for
from tests.bench.report import Claim, Figure

PARKED, FORKED, COLD, AGAIN = "vx11, parked", "vx11, forked", "FastStream, cold", "the same again"
HELLO = "hello"
ECHO = f"vx11.{HELLO}.echo"
ACTORS = Path(__file__).parent / "programs" / "actors"
GUEST = "vx11.guest.echo"
"""What the FastStream program answers, as user `actor` of the same server."""
ASK_S = 20.0
AGAIN_S = 0.001
STILL_S = 0.03
WAKE_S = 1.0
"""More than any wake takes."""
QUIET_S = 0.05
"""Before each start, so that what the last one left behind is done."""
BODY = b'{"n": 7}'
ABOUT = """From the activation of a sleeper to its first answer, against the cold start of a program with FastStream.
In ms, in a whole system; asked_p50_ms: from the request of a stock nats-py client, which caused
it. Either answers one verb, pydantic in and out. parked: a spare was ready; forked: it had been taken away; which of the two it
was is seen by the process id in the answer. FastStream: from starting python to the answer; no log, no telemetry, a user of the
same server. pss_mb: proportional memory of the process that answered. cpu_ms: processor time of all that had a part in it. p50
of each round, p99 over all."""


@dataclass(frozen=True)
class Size:
    rounds: int = 5
    wakes: int = 40
    """Of each kind in a round."""
    cold: int = 5


@dataclass
class Wakes:
    system: System
    bus: Bus
    plain: Client
    times: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    spent: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    activated: float = 0.0
    """When the last activation was heard of."""
    none_until: float = 0.0
    """When a spare may be forked again."""

    @cached_property
    def around(self) -> set[int]:
        """Who has a part in a wake, beside the process that is woken."""
        return {self.system.pid(name) for name in ("nats-server", "madre", "host")} | {self._zygote().pid}

    def activation(self, _: object) -> None:
        self.activated = time.perf_counter()

    async def round(self, size: Size) -> None:
        works = [(PARKED, size.wakes), (FORKED, size.wakes), (COLD, size.cold), (AGAIN, size.cold)]
        for config, _ in works:
            self.times[config].append([])
        parts = [(config, part) for config, number in works for part in _parts(number)]
        for config, number in random.sample(parts, len(parts)):
            times = self.times[config][-1]
            await (self._cold(config, times, number) if config in (COLD, AGAIN) else self._wake(config, times, number))

    async def _wake(self, config: str, times: list[float], number: int) -> None:
        """Wakes that turned out to be of the other kind are made again."""
        done = 0
        while done < number:
            await asleep(self.bus, HELLO)
            await self._spare(ready=config == PARKED)
            await asyncio.sleep(QUIET_S)
            spares = {child.pid for child in self._zygote().children()}
            spent = cpu_s(spares | self.around)
            began = time.perf_counter()
            answer = await self.plain.request(ECHO, BODY, timeout=ASK_S)
            now, pid = time.perf_counter(), _pid(answer.data)
            if (pid in spares) == (config == PARKED):
                times.append(1000 * (now - self.activated))
                self.asked[config].append(1000 * (now - began))
                self._note(config, pid, cpu_s({pid} | spares | self.around) - spent)
                done += 1

    def _note(self, config: str, pid: int, spent: float) -> None:
        self.sizes[config].append(pss_kib(pid) / 1024)
        self.spent[config].append(1000 * spent)

    async def _cold(self, config: str, times: list[float], number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(QUIET_S)
            spent = cpu_s(self.around)
            began = time.perf_counter()
            guest = Program("guest", self.system.url, self.system.seed("actor"), GUEST)
            try:
                guest.ready()
                answer = await self._answer_of_the_guest()
                times.append(1000 * (time.perf_counter() - began))
                pid = _pid(answer.data)
                self._note(config, pid, cpu_s({pid} | self.around) - spent)
            finally:
                guest.stop()

    async def _answer_of_the_guest(self) -> Msg:
        """It says that it is ready a moment before the server knows that it listens."""
        end = time.monotonic() + ASK_S
        while time.monotonic() < end:
            with contextlib.suppress(NoRespondersError):
                return await self.plain.request(GUEST, BODY, timeout=ASK_S)
            await asyncio.sleep(AGAIN_S)
        raise TimeoutError(f"nobody listens on {GUEST}")

    async def _spare(self, *, ready: bool) -> None:
        """Wait for one that is warm, or see to it that there is none, nor one on its way, which would want the processor.

        The zygote forks none for SPARE_DIED_S seconds after the death of one.
        """
        if ready:
            await asyncio.to_thread(wait_for, "a spare that is warm", self._warm)
        elif time.monotonic() > self.none_until:
            await asyncio.to_thread(wait_for, "a spare to take away", lambda: self._zygote().children())
            for child in self._zygote().children():
                child.kill()
            self.none_until = time.monotonic() + SPARE_DIED_S - WAKE_S
            await asyncio.to_thread(wait_for, "the spare to be gone", lambda: not self._zygote().children())

    def _warm(self) -> bool:
        """A spare that is warm waits for its name: it sleeps, and is not switched to while one looks on."""
        before = self._switches()
        time.sleep(STILL_S)
        return bool(before) and before == self._switches()

    def _switches(self) -> dict[int, int]:
        spares = [child for child in self._zygote().children() if child.status() == psutil.STATUS_SLEEPING]
        return {child.pid: sum(child.num_ctx_switches()) for child in spares}

    def _zygote(self) -> psutil.Process:
        (zygote,) = psutil.Process(self.system.pid("host")).children()
        return zygote


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure or RuntimeError when something does not start or answer."""
    with scratch(home, services=",".join(SERVICES), variables={"VX11_ACTORS_PATH": str(ACTORS)}) as system:
        wakes = asyncio.run(_measured(system, size))
    rounds = Rounds()
    for config, times in wakes.times.items():
        for one in times:
            rounds.add(config, p50_ms=percentile(one, 0.5))
        rounds.add(config, p99_ms=percentile([ms for one in times for ms in one], 0.99))
        rounds.add(config, asked_p50_ms=percentile(wakes.asked[config] or [ms for one in times for ms in one], 0.5))
        rounds.add(config, pss_mb=percentile(wakes.sizes[config], 0.5), cpu_ms=percentile(wakes.spent[config], 0.5))
    return Figure("wake", ABOUT, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    noise = {quantity: rounds.spread(quantity, COLD, AGAIN) for quantity in ("p50_ms", "p99_ms", "pss_mb", "cpu_ms")}
    asked = (
        ("forked, median", "p50_ms", FORKED, 1 / 18, 1 / 4),
        ("forked, 99 of 100", "p99_ms", FORKED, 1 / 8, None),
        ("parked, median", "p50_ms", PARKED, 1 / 60, 1 / 10),
        ("parked, 99 of 100", "p99_ms", PARKED, 1 / 20, None),
        ("memory, forked", "pss_mb", FORKED, 1 / 4, 1.0),
        ("memory, parked", "pss_mb", PARKED, 1 / 4, 1.0),
        ("processor time, forked", "cpu_ms", FORKED, None, 1 / 3),
        ("processor time, parked", "cpu_ms", PARKED, None, 1 / 5),
    )
    return [Claim(w, rounds.ratio(q, config, COLD), noise[q], most=most, gross=gross) for w, q, config, most, gross in asked]


async def _measured(system: System, size: Size) -> Wakes:
    plain = await nats.connect(system.url, nkeys_seed_str=system.seed("client").read_text().strip())
    try:
        async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="bench", fast=True) as bus:
            await known(bus, actor=HELLO)
            await bus.ask(ECHO, BODY, timeout=ASK_S)  # whoever asks plainly may be too early for the stand-in
            wakes = Wakes(system, bus, plain)
            await bus.listen(f"vx11.events.power.activate.{HELLO}", wakes.activation)
            await bus.wire.barrier()
            for _ in range(size.rounds):
                await wakes.round(size)
            return wakes
    finally:
        await plain.close()


def _parts(number: int, most: int = 10) -> list[int]:
    """Small batches, so that the kinds alternate."""
    return [min(most, number - begun) for begun in range(0, number, most)]


def _pid(answer: bytes) -> int:
    return int(json.loads(answer)["pid"])
