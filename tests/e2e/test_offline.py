"""Without any endpoint and without a network: the small model on this machine answers, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from actors.switch.offline.child import PROGRAM
from bus.exclusive import Lease, holder
from tests.e2e.house import House, house, until

NOTE = "offline model, 135M, English"


@pytest.fixture(scope="module")
def home(tmp_path_factory, weights) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("offline")
    (folder / "models").mkdir()
    (folder / "models" / "smollm2.gguf").symlink_to(weights)
    with house(folder, {"VX11_MODEL_CONTEXT": "256", "HTTPS_PROXY": "http://127.0.0.1:9"}) as made:
        yield made


def children(home: House) -> list[psutil.Process]:
    """Whoever holds a model. A child whose parent was killed is nobody's descendant any more."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            here = process.environ().get("VX11_HOME") == str(home.home)
            if here and str(PROGRAM) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


async def test_a_chat_with_everybody_asleep_is_answered_by_it_and_says_so(home: House) -> None:
    await home.asleep("switch", "operator_backend")
    assert children(home) == []
    events = await home.chat_stream("Say in one short sentence what a bird is.")
    first, last = events[0].data, events[-1].data
    assert first["speaker"]["note"] == NOTE
    assert len(events) > 2
    assert (last["provider"], last["model"], last["note"], last["degraded"]) == ("local", "smollm2", NOTE, False)
    assert last["response"] == "".join(event.data["text"] for event in events[:-1])
    assert len(children(home)) == 1


async def test_its_memory_is_gone_when_switch_sleeps(home: House) -> None:
    await home.chat("Say in one short sentence what a sea is.")
    assert len(children(home)) == 1
    await home.sleep("switch")
    await home.asleep("switch")
    assert children(home) == []
    assert holder(home.home / "models") is None


async def test_somebody_else_has_the_memory_as_soon_as_he_asks(home: House) -> None:
    """As the models of sound will: the one that is loaded and idle goes, and comes back when it is asked."""
    await home.chat("Say in one short sentence what a lake is.")
    assert len(children(home)) == 1
    async with home.bus("actor") as bus:
        lease = Lease(home.home / "models", "the ear", bus.tell)
        await lease.take(asyncio.get_running_loop().time() + 20, "its model")
        assert children(home) == []
        lease.release()
    answer = await home.chat("Say in one short sentence what a river is.")
    assert answer.json["provider"] == "local"


async def test_killing_switch_leaves_no_model_behind(home: House) -> None:
    """kill -9 in mid-answer: the child ends with it, the lease is free, and the next question is answered."""
    url, story = "/operator/api/chat", {"message": "Tell me a very long story about a sailor, please.", "stream": True}
    async with home.follow("POST", url, json=story) as events:
        assert (await anext(events)).data["speaker"]["provider"] == "local"
        (child,) = children(home)
        os.kill(child.ppid(), signal.SIGKILL)
        rest = [event async for event in events]
    assert rest[-1].name in ("reply", "error"), "an explicit end"
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child is gone")
    await until(lambda: holder(home.home / "models") is None, "the lease is free")
    answer = await home.chat("Say in one short sentence what a tree is.")
    assert answer.json["provider"] == "local"


async def test_killing_the_model_in_mid_answer_ends_in_words(home: House) -> None:
    """There is no other model: madre says so, and the next question is answered by a model again."""
    url, story = "/operator/api/chat", {"message": "Tell me a very long story about a whale, please.", "stream": True}
    async with home.follow("POST", url, json=story) as events:
        await anext(events)
        (child,) = children(home)
        child.kill()
        rest = [event async for event in events]
    assert rest[-1].data["degraded"], rest[-1].data
    assert "its process was killed" in rest[-1].data["reason"]
    answer = await home.chat("Say in one short sentence what a stone is.")
    assert (answer.json["provider"], answer.json["note"]) == ("local", NOTE)
