"""Through VX11 to a quick language model, against asking it directly: what the way costs, and that no piece is lost on it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.torture.system import scratch
from tests.bench.numbers import Rounds, percentile
from tests.bench.process import begun, program
from tests.bench.report import Claim, Figure

OURS, DIRECT, AGAIN = "vx11 /v1", "directly", "directly again"
STREAMS = 32
PAUSE_MS = 10.0
"""A hundred pieces a second in each stream: a quick model."""
MOST, MORE_MS = 1.15, 3.0
LOAD_S = 1_200.0
ABOUT = f"""Through VX11 to a quick language model, against asking it directly.
POST /v1/chat/completions with "stream", {STREAMS} streams at a time, a new question as soon as one is answered; the model says
a numbered piece each {PAUSE_MS:g} ms, the first at once. first_ms: from the question to the first word, median and p99. lost: of
all pieces, those that did not come or not in order; whole: as fast as they are read, without a pause."""


@dataclass(frozen=True)
class Size:
    pieces: int = 100
    answers: int = 4
    """Of each stream, in a slice."""
    slices: int = 3
    rounds: int = 3
    whole: int = 1_000_000
    """Pieces in all that are passed on without a pause."""
    whole_each: int = 15_625
    """Of one answer: 87,000 characters."""


def measure(home: Path, size: Size) -> Figure:
    """Raises Failure or RuntimeError when something does not start, AssertionError when an answer failed."""
    rounds = Rounds()
    with ExitStack() as stack:
        model = stack.enter_context(program("model"))
        direct = f"http://127.0.0.1:{model.ready()}/v1"
        variables = {
            "VX11_LLM_URL": direct,
            "VX11_LLM_MODEL": "count",
            "VX11_HTTP_RATE": "0",
            "VX11_HTTP_TOKEN_STREAMS": "64",
            "OLLAMA_HOST": "127.0.0.1:9",
        }
        system = stack.enter_context(scratch(home, services="madre,host,tentaculo_link", variables=variables))
        asyncio.run(begun(system))
        urls = {OURS: f"{system.http_url}/v1", DIRECT: direct, AGAIN: direct}
        orders = {name: _order(f"{url}/chat/completions", system.token) for name, url in urls.items()}
        for order in orders.values():
            _read(order, size, answers=1)
        for _ in range(size.rounds):
            _round(rounds, orders, size)
        answers = max(1, size.whole // (STREAMS * size.whole_each))
        got = _read(orders[OURS], size, answers=answers, pieces=size.whole_each, pause_ms=0.0)
        count = answers * STREAMS * size.whole_each
        rounds.add(OURS, whole=count, whole_lost=got["lost"], whole_per_s=count / got["seconds"])
    return Figure("relaying", ABOUT, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    ours, direct = (rounds.median(name, "first_p50_ms") for name in (OURS, DIRECT))
    lost = sum(rounds.values[OURS, "lost"]) + sum(rounds.values[OURS, "whole_lost"])
    noise = rounds.spread("first_p50_ms", DIRECT, AGAIN)
    return [
        Claim("first word, beyond 1.15 times the direct one", ours - MOST * direct, most=MORE_MS, gross=10.0, unit="ms"),
        Claim("first word, p50", rounds.ratio("first_p50_ms", OURS, DIRECT), noise),
        Claim("pieces lost", lost, most=0.0, gross=1.0),
    ]


def _order(url: str, token: str) -> dict[str, Any]:
    return {"url": url, "token": token, "model": "count", "streams": STREAMS, "pause_ms": PAUSE_MS}


def _round(rounds: Rounds, orders: Mapping[str, dict[str, Any]], size: Size) -> None:
    times: dict[str, list[float]] = {name: [] for name in orders}
    lost = dict.fromkeys(orders, 0)
    for _ in range(size.slices):
        for name in random.sample(list(orders), len(orders)):
            got = _read(orders[name], size)
            times[name] += got["first_ms"]
            lost[name] += got["lost"]
    for name, first in times.items():
        rounds.add(name, first_p50_ms=percentile(first, 0.5), first_p99_ms=percentile(first, 0.99), lost=lost[name])


def _read(order: Mapping[str, Any], size: Size, **told: Any) -> dict[str, Any]:
    with program("reading", json.dumps({"pieces": size.pieces, "answers": size.answers, **order, **told})) as reading:
        result: dict[str, Any] = json.loads(reading.result(LOAD_S))
    return result
