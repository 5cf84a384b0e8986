"""From a chat to the first word of the model on this machine, with everything asleep, against the bare llama.cpp started cold.

The bare one is the same program with the same settings, started by itself and asked over HTTP for the same answer.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.switch.offline.child import PROGRAM, told
from bus import models
from bus.client import Bus
from bus.settings import Settings
from gateway.torture.cycles import known
from gateway.torture.storm import asleep
from gateway.torture.system import System, scratch
from tests.bench.numbers import Rounds
from tests.bench.process import begun
from tests.bench.report import Claim, Figure

OURS, BARE, AGAIN = "vx11, asleep", "llama.cpp, cold", "the same again"
SLEEPERS = ("switch", "operator_backend")
QUESTION = "What is a bird, in one sentence?"
MOST, GROSS = 1.5, 3.0
QUIET_S = 0.1
"""Before each start, so that what the last one left behind is done."""
ASK_S = 60.0
ABOUT = """From a chat to the first word of the model on this machine, with everything asleep, against the bare llama.cpp cold.
first_ms: POST /operator/api/chat with "stream", while operator_backend and switch sleep and no model is loaded; and from starting
the bare child (same program, settings and question) to its first word over HTTP. rest_ms: from the first word to the last."""


@dataclass(frozen=True)
class Size:
    rounds: int = 5
    asks: int = 3
    """Of each in a round."""


def measure(home: Path, model: Path, size: Size) -> Figure:
    """`model`: a GGUF file. Raises Failure or RuntimeError when something does not start, AssertionError when nobody answers."""
    folder = home / "models"
    folder.mkdir(parents=True)
    (folder / "smollm2.gguf").symlink_to(model.resolve())
    variables = {"OLLAMA_HOST": "127.0.0.1:9"}
    rounds = Rounds()
    with scratch(home, services="madre,host,tentaculo_link", variables=variables) as system:
        asyncio.run(begun(system))
        _chat(system)
        bare = _settings(home)
        for _ in range(size.rounds):
            _round(rounds, system, bare, size.asks)
    return Figure("thinking", ABOUT, rounds, claims(rounds))


def claims(rounds: Rounds) -> list[Claim]:
    noise = rounds.spread("first_ms", BARE, AGAIN)
    return [Claim("first word", rounds.ratio("first_ms", OURS, BARE), noise, most=MOST, gross=GROSS)]


def _round(rounds: Rounds, system: System, bare: dict[str, Any], asks: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {OURS: [], BARE: [], AGAIN: []}
    for name in random.sample([*times] * asks, 3 * asks):
        if name == OURS:
            asyncio.run(_all_asleep(system))
        time.sleep(QUIET_S)
        times[name].append(_chat(system) if name == OURS else _bare(bare))
    for name, found in times.items():
        first, rest = (sorted(column)[asks // 2] for column in zip(*found, strict=True))
        rounds.add(name, first_ms=first, rest_ms=rest)


def _chat(system: System) -> tuple[float, float]:
    """Milliseconds to the first word, and from there to the end."""
    body = {"message": QUESTION, "stream": True}
    with _posted(system.http_url, "/operator/api/chat", system.token, body) as (began, response):
        return _timed(began, response, "text")


def _bare(told: dict[str, Any]) -> tuple[float, float]:
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-I", str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(told).encode() + b"\n")
        child.stdin.flush()
        url = json.loads(child.stdout.readline())["url"]
        body = {"messages": [{"role": "user", "content": QUESTION}], "stream": True}
        with _posted(url, "/v1/chat/completions", told["key"], body) as (_, response):
            return _timed(began, response, "content")
    finally:
        child.kill()
        child.communicate()


def _settings(home: Path) -> dict[str, Any]:
    settings = Settings(home)
    return told(models.find(settings, "smollm2"), settings, "bench")


@contextmanager
def _posted(url: str, path: str, key: str, body: dict[str, Any]) -> Iterator[tuple[float, http.client.HTTPResponse]]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=ASK_S)
    began = time.perf_counter()
    try:
        connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        yield began, response
    finally:
        connection.close()


def _timed(began: float, response: http.client.HTTPResponse, field: str) -> tuple[float, float]:
    """`field`: where a piece of text stands in the JSON of an event."""
    first = 0.0
    mark = f'"{field}":"'.encode()
    for line in response:
        if not first and line.startswith(b"data:") and mark in line.replace(b'": "', b'":"'):
            first = time.perf_counter()
        if b'"degraded":true' in line:
            raise AssertionError(line.decode())
    assert first, "nothing was said"
    return (first - began) * 1e3, (time.perf_counter() - first) * 1e3


async def _all_asleep(system: System) -> None:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="bench", fast=True) as bus:
        await known(bus)
        for actor in SLEEPERS:
            await asleep(bus, actor)
