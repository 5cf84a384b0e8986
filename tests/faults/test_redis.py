"""Redis dies and stands still under a hundred chat turns: every turn is answered, and no session hears another (F5)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.house import House, Reply, house, until
from tests.faults.scene import LONG, go_on, seeds
from tests.switch.scripted import Exchange

SESSIONS = 10
TURNS = 10
AWAY_S = 1.5
LONG_S = 30.0
PART = 0.3
"""Of the time that it is away, until a session's next turn, at most."""
BACK_S = 20.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("faults") / "home") as made:
        yield made


async def repeats(exchange: Exchange) -> None:
    """A model that says what it was asked last."""
    asked = [line["content"] for line in exchange.asked.document["messages"] if line["role"] == "user"]
    await exchange.head()
    await exchange.say(f"You said: {asked[-1]}")
    await exchange.finish()


async def talk(home: House, session: str, seed: bytes, apart: float) -> list[Reply]:
    """The turns of one session, one after the other, `apart` seconds at most."""
    replies, chance = [], random.Random(seed)
    for turn in range(TURNS):
        replies.append(await home.chat(f"{session} says {turn}", body={"session_id": session}))
        await asyncio.sleep(chance.uniform(0.0, apart))
    return replies


@pytest.mark.parametrize(("away", "seed"), [*((AWAY_S, seed) for seed in seeds()), *([(LONG_S, 1)] if LONG else [])])
@pytest.mark.parametrize("deed", ["killed", "frozen"])
async def test_a_hundred_turns_while_redis_is_away(home: House, deed: str, away: float, seed: int) -> None:
    chance = random.Random(seed)
    sessions = [f"{deed}-{away * 10:.0f}-{seed}-{n}" for n in range(SESSIONS)]
    async with home.model(repeats):
        talking = [asyncio.create_task(talk(home, session, chance.randbytes(8), away * PART)) for session in sessions]
        await asyncio.sleep(chance.uniform(0.3, 1.0))  # the moment is the seed's
        stopped = home.system.process.pid if deed == "killed" else home.pid("redis")
        os.kill(stopped, signal.SIGSTOP)  # nobody starts it again; or it itself stands still
        try:
            if deed == "killed":
                os.kill(home.pid("redis"), signal.SIGKILL)
            await asyncio.sleep(away)
        finally:
            go_on(stopped)
        replies = dict(zip(sessions, await asyncio.gather(*talking), strict=True))
    check(replies)

    async def stored() -> bool:
        return (await home.chat("hello")).json["history"] == "stored"

    await until(stored, "there is history again", BACK_S)
    for session, said in replies.items():
        await check_history(home, session, said)


def check(replies: dict[str, list[Reply]]) -> None:
    """Each turn has its own answer; some are told that there was no history, and some that there was."""
    every = [reply for said in replies.values() for reply in said]
    assert Counter(reply.status for reply in every) == {200: SESSIONS * TURNS}
    assert {reply.json["history"] for reply in every} == {"stored", "unavailable"}
    for session, said in replies.items():
        for turn, reply in enumerate(said):
            assert reply.json["session_id"] == session
            assert reply.json["response"] == f"You said: {session} says {turn}", reply.text


async def check_history(home: House, session: str, said: list[Reply]) -> None:
    """What was told to be stored is there, in order, and nothing of anybody else."""
    answer = await home.post("/call/operator_backend/get_session", {"session_id": session})
    lines = answer.json["lines"] if answer.status == 200 else []
    texts = [line["text"] for line in lines]
    assert all(text.removeprefix("You said: ").startswith(f"{session} says ") for text in texts), texts
    promised = [f"{session} says {turn}" for turn, reply in enumerate(said) if reply.json["history"] == "stored"]
    found = [text for text in texts if not text.startswith("You said: ")]
    assert [text for text in promised if text not in found] == []
    assert found == sorted(found, key=lambda text: int(text.rsplit(" ", 1)[1]))
