"""Sorting in the running system: its process is killed, switch sleeps, and nothing of it is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from actors.switch.kind.embedding import PROGRAM
from bus.client import Bus
from gateway.torture.cycles import known
from gateway.torture.storm import asleep
from gateway.torture.system import System, scratch
from schemas.switch import Embed, Route, Routed

PATIENCE_S = 15.0
ALONE = {"OLLAMA_HOST": "127.0.0.1:9"}


def embedders(system: System) -> list[psutil.Process]:
    """Those of this system: other tests may have theirs."""
    ours = psutil.Process(system.process.pid).children(recursive=True)
    return [one for one in ours if one.is_running() and one.status() != psutil.STATUS_ZOMBIE and str(PROGRAM) in one.cmdline()]


async def by_embedding(bus: Bus, text: str) -> Routed:
    """Asked until it is not the letters that decide: after a crash there is a rest, and on a busy machine a start takes long."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await bus.request(Route(text=text))).how != "embedding":
            await asyncio.sleep(0.1)
    return found


async def test_a_killed_embedding_is_noticed_replaced_and_gone_when_switch_sleeps(tmp_path: Path) -> None:
    with scratch(tmp_path / "home", variables=ALONE) as system:
        async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="sorting", fast=True) as bus:
            await known(bus)
            found = await by_embedding(bus, "could somebody get the switch actor up for me")
            assert (found.kind, found.note) == ("platform", "")
            (child,) = embedders(system)
            child.kill()
            await asyncio.to_thread(psutil.wait_procs, [child], PATIENCE_S)
            found = await bus.request(Route(text="how loud is the master of my song, roughly"))
            assert found.kind == "audio"
            assert (await by_embedding(bus, "please rename the files in that folder by their date")).kind == "job"
            vectors = (await bus.request(Embed(input=["query: bees", "passage: honey"]))).vectors
            assert [len(vector) for vector in vectors] == [384, 384]
            (child,) = embedders(system)
            await asleep(bus, "switch")
            gone, _ = await asyncio.to_thread(psutil.wait_procs, [child], PATIENCE_S)
            assert gone == [child]
            assert embedders(system) == []
