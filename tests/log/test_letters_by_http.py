"""Dead letters from another machine: through the door, and with `vx11 dlq` through the door."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus.client import Bus
from bus.loading import TREE
from gateway.torture.system import System, door_open, scratch
from tests.log.mill import ACTORS, FED, hears

DLQ = "/operator/api/dlq"
SOON_S = 20.0


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    variables = {"VX11_ACTORS_PATH": str(ACTORS), "VX11_IDLE_AFTER": "300", "VX11_RETRY_S": "0.1"}
    with scratch(tmp_path / "home", services="madre,keeper,host,tentaculo_link", variables=variables) as system:
        yield system


async def ask(system: System, method: str, path: str, body: Any = None) -> Any:
    headers = {"X-VX11-Token": System.token_of(system.home)}
    url = system.http_url + path
    async with aiohttp.ClientSession() as http, http.request(method, url, json=body, headers=headers) as answer:
        document = await answer.json()
        assert answer.status == 200, document
        return document


async def letters(system: System, *those: int) -> list[dict]:
    """Wait until these, and no others, are there."""
    end = time.monotonic() + SOON_S
    while True:
        found = (await ask(system, "GET", f"{DLQ}?actor=mill"))["letters"]
        if [one["sequence"] for one in found] == list(those):
            return found
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)


async def vx11(system: System, *words: str) -> str:
    """The command line as on a machine that has nothing but the address and a token."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("VX11_")}
    environ |= {"VX11_URL": system.http_url, "VX11_TOKEN": System.token_of(system.home), "PYTHONPATH": str(TREE)}
    command = [sys.executable, "-m", "gateway.cli", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=system.home, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_letters_are_listed_shown_retried_and_dropped_through_the_door(system: System) -> None:
    await door_open(system)
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as bus:
        await hears(bus)
        for n in (1, 2):
            await bus.publish_raw(FED, json.dumps({"n": n, "kind": "stone"}).encode())
    first, second = await letters(system, 1, 2)
    assert (first["reason"], first["tries"], first["consumer"]) == ("failed", 2, "mill__grind")
    shown = await ask(system, "GET", f"{DLQ}/1")
    assert json.loads(shown["body"])["n"] == 1
    assert [one["try"] for one in shown["history"]] == [1, 2]
    (system.home / "mill.mended").touch()
    assert (await ask(system, "POST", "/madre/power/service/mill/sleep", {}))["to"] == "dormant"  # what comes back wakes it
    assert (await ask(system, "POST", f"{DLQ}/1/retry"))["consumer"] == "mill__grind"
    await letters(system, 2)
    assert json.loads(await vx11(system, "dlq", "ls", "--json"))["letters"] == [second]
    assert "1 of 1 dropped" in await vx11(system, "dlq", "drop", "2", "--reason", "a test sent it")
    await letters(system)
    await ground(system, 1)


async def ground(system: System, *those: int) -> None:
    file, end = system.home / "mill.jsonl", time.monotonic() + SOON_S
    while [json.loads(line)["n"] for line in file.read_text().splitlines()] != list(those):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
