"""The replays that the keeper has been asked for: each is a process of its own, so that her loop only passes on its words."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from secrets import token_hex
from typing import Any

from bus.loading import TREE
from bus.process import die_with_parent
from bus.settings import Settings
from schemas.errors import Failure
from schemas.replay import ENDED, ReplayList, ReplayProgress, ReplayStatus, StartReplay

log = logging.getLogger("vx11.keeper.replays")

AT_ONCE = 4
KEPT = 64
"""Summaries of replays that have ended."""
HEARD_S = 5.0
"""For an order to be taken; the first one waits until the process has come up."""
BEGUN_S = 15.0
"""For the first word of its process, on a busy machine."""
END_S = 10.0
LINE_BYTES_MOST = 4 * 1024 * 1024


class Playing:
    """One process and what it said last."""

    def __init__(self, process: Process, wanted: StartReplay) -> None:
        self.process = process
        self.status = ReplayStatus(id=wanted.id, state="reading", target="", pace=wanted.pace)
        self.failed: Failure | None = None
        self._news = asyncio.Condition()
        self._orders = 0
        self._heard = 0
        self._refused: dict[int, Failure] = {}
        self.listening = asyncio.create_task(self._listen())

    @property
    def over(self) -> bool:
        return self.failed is not None or self.status.state in ENDED

    async def order(self, do: str, **more: Any) -> ReplayStatus:
        """Raises Failure: what the replay says, or when it does not hear."""
        if self.over:
            raise Failure("conflict", f"replay {self.status.id} is {self.status.state} already")
        self._orders += 1
        number = self._orders
        self._send({"n": number, "do": do, **more})
        try:
            async with asyncio.timeout(HEARD_S), self._news:
                await self._news.wait_for(lambda: self._heard >= number or self.over)
        except TimeoutError:
            raise Failure("timeout", f"replay {self.status.id} has not taken the order in {HEARD_S:g} s") from None
        if refused := self._refused.pop(number, None):
            raise refused
        return self.status

    async def change(self) -> ReplayStatus:
        """The next word of it. Raises Failure when it has broken off."""
        async with self._news:
            if not self.over:
                await self._news.wait()
        if self.failed:
            raise self.failed
        return self.status

    async def close(self) -> None:
        """End its process, which confirms and says what it has sent."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await self.listening
        except TimeoutError:
            self.process.kill()
            await self.listening

    def start(self, url: str, seed: str, wanted: StartReplay) -> None:
        self._send({"url": url, "seed": seed, "wanted": wanted.model_dump(mode="json")})

    def _send(self, document: dict[str, Any]) -> None:
        if self.process.stdin and not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(document).encode() + b"\n")

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            await self._take(json.loads(line))
        code = await self.process.wait()
        if not self.over:
            told = f"the process of replay {self.status.id} ended with {code} at sequence {self.status.position}"
            await self._take({"failed": {"code": "crashed", "message": told}})

    async def _take(self, told: dict[str, Any]) -> None:
        async with self._news:
            if "status" in told:
                self.status = ReplayStatus.model_validate(told["status"])
            self._heard = told.get("heard", self._heard)
            if refused := told.get("refused"):
                self._refused[self._heard] = Failure(refused["code"], refused["message"])
            if failed := told.get("failed"):
                self.failed = Failure(failed["code"], failed["message"])
                self.status = self.status.model_copy(update={"state": "failed", "error": failed["message"]})
            self._news.notify_all()


class Replays:
    """All of them, by their ids; those that have ended are remembered for a while."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._all: OrderedDict[str, Playing] = OrderedDict()
        self._spawning = asyncio.Lock()
        """Between a look at those there are and being one of them."""

    async def start(self, wanted: StartReplay) -> Playing:
        """Raises Failure("conflict" | "busy")."""
        wanted = wanted.model_copy(update={"id": wanted.id or token_hex(4)})
        async with self._spawning:
            self._has_room(wanted.id)
            playing = Playing(await self._spawn(), wanted)
            self._all.pop(wanted.id, None)
            self._all[wanted.id] = playing
        self._forget()
        seed = self._settings.seed_file("keeper")
        playing.start(self._url, str(seed) if seed.exists() else "", wanted)
        try:
            async with asyncio.timeout(BEGUN_S):
                await playing.change()
        except TimeoutError:
            await playing.close()
            raise Failure("timeout", f"the process of replay {wanted.id} has said nothing in {BEGUN_S:g} s") from None
        return playing

    def _has_room(self, id_: str) -> None:
        if (same := self._all.get(id_)) and not same.over:
            raise Failure("conflict", f"replay {id_} is {same.status.state}; take another id, or stop it first")
        if sum(not playing.over for playing in self._all.values()) >= AT_ONCE:
            raise Failure("busy", f"{AT_ONCE} replays are under way already; stop one, or play over a connection of your own")

    def __getitem__(self, id_: str) -> Playing:
        """Raises Failure("not_found")."""
        if id_ not in self._all:
            raise Failure("not_found", f"there is no replay {id_}; list_replays has those there are")
        return self._all[id_]

    def list(self, id_: str = "") -> ReplayList:
        """Newest first."""
        chosen = [self[id_]] if id_ else list(reversed(self._all.values()))
        return ReplayList(replays=[playing.status for playing in chosen])

    async def progress(self, wanted: StartReplay) -> AsyncIterator[ReplayProgress | ReplayStatus]:
        """Start one and tell of it to the end; with `detach` only that it has begun."""
        playing = await self.start(wanted)
        while not wanted.detach and not playing.over:
            yield ReplayProgress.model_validate(playing.status.model_dump())
            await playing.change()
        yield playing.status

    async def stop(self, id_: str) -> ReplayStatus:
        """End one here; its summary. One that has ended already stays as it was."""
        playing = self[id_]
        if not playing.over:
            await playing.order("stop")
        while not playing.over:
            await playing.change()
        return playing.status

    async def close(self) -> None:
        """End all."""
        await asyncio.gather(*(playing.close() for playing in self._all.values()))

    async def _spawn(self) -> Process:
        told = {**self._settings.variables, "PYTHONPATH": str(TREE)}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "actors.keeper.replayer",
            stdin=PIPE,
            stdout=PIPE,
            env=told,
            limit=LINE_BYTES_MOST,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )

    def _forget(self) -> None:
        ended = [id_ for id_, playing in self._all.items() if playing.over]
        for id_ in ended[: max(0, len(ended) - KEPT)]:
            del self._all[id_]
