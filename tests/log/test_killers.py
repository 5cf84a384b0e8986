"""A request that has killed two instances is given to no third: it is kept as a dead letter, and asked again on demand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.client import Bus
from gateway.torture.system import System, scratch
from schemas.dead import Dead, GetDead, ListDead, RetryDead
from schemas.errors import Failure
from tests.log.mill import ACTORS

SMASH = "vx11.mill.smash"
SOON_S = 30.0


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    variables = {"VX11_ACTORS_PATH": str(ACTORS), "VX11_IDLE_AFTER": "300"}
    with scratch(tmp_path / "home", services="madre,keeper,host", variables=variables) as system:
        yield system


@asynccontextmanager
async def connected(system: System, user: str, actor: str = "") -> AsyncIterator[Bus]:
    async with Bus.connect(system.url, user=user, seed=system.seed(user), name="test", actor=actor) as bus:
        yield bus


async def letters(bus: Bus, many: int) -> list[Dead]:
    end = time.monotonic() + SOON_S
    while len(found := (await bus.request(ListDead())).letters) < many:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)
    return found


async def smash(bus: Bus, **fields: object) -> bytes:
    return (await bus.ask(SMASH, json.dumps(fields).encode(), timeout=SOON_S, idempotent=True)).body


async def test_a_request_that_killed_two_instances_is_buried_and_can_be_asked_again(system: System) -> None:
    async with connected(system, "client") as client, connected(system, "gateway", "tentaculo_link") as door:
        with pytest.raises(Failure, match="2 instances of mill died while they had this request"):
            await smash(door, n=7)
        [letter] = await letters(client, 1)
        assert (system.home / "mill.smashed").read_text().split() == ["7", "7"]
        assert (letter.actor, letter.subject, letter.reason, letter.consumer) == ("mill", SMASH, "crashed", "")
        assert json.loads((await client.request(GetDead(sequence=letter.sequence))).body) == {"n": 7}
        with pytest.raises(Failure):
            await client.request(RetryDead(sequence=letter.sequence), timeout=SOON_S)  # it kills again: the letter stays
        assert [one.sequence for one in await letters(client, 1)] == [letter.sequence]
        (system.home / "mill.mended").touch()
        await retried(client, letter.sequence)
        assert (await client.request(ListDead())).letters == []


async def retried(bus: Bus, sequence: int) -> None:
    """Once the actor has rested from its deaths."""
    end = time.monotonic() + SOON_S
    while True:
        try:
            await bus.request(RetryDead(sequence=sequence), timeout=SOON_S)
            return
        except Failure:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)
