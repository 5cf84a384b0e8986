"""A model in a process of its own: started, asked how it does, ended. What kills it does not kill switch."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.switch.asking.failure import ProviderFailed, quoted
from bus import models
from bus.models import Model
from bus.process import is_same, started_at
from bus.settings import Settings

log = logging.getLogger("vx11.switch.model")

PROGRAM = Path(__file__).with_name("llama.py")
LOAD_MAX_S = 600.0
"""For a large model from a slow disk."""
STOP_S = 2.0
DEATH_S = 0.25
"""After a cut answer, for the news to come that the process behind it has died."""
KEY_BYTES = 32
LOG_MAX_BYTES = 64 * 1024
"""Of what one child prints; the rest is read and dropped."""
WORDS_MAX_BYTES = 4_096
READ_BYTES = 4_096
LOAD_ERROR = re.compile(rb"error loading model: (.+)")
THREADS_MAX = 256


class Child:
    """One loaded model. `url`, `key`: where and how it is asked."""

    def __init__(self, model: Model, process: Process, key: str) -> None:
        self.model = model
        self.key = key
        self.url = ""
        self._process = process
        self._born = started_at(process.pid)
        self._words = b""
        self._logged = 0
        self._listening = asyncio.create_task(self._listen(), name="words of the model")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def resident(self) -> int:
        """Bytes of memory that it has now; 0 when it is gone."""
        import psutil

        try:
            return int(psutil.Process(self.pid).memory_info().rss) if is_same(self.pid, self._born) else 0
        except psutil.Error:
            return 0

    async def death(self) -> str:
        """Why it has died, if it has or is just about to; else empty."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DEATH_S):
                await self._process.wait()
        return self._obituary() if self.ended else ""

    async def stop(self) -> None:
        """Return when it is gone, and its memory with it."""
        if self._process.stdin:
            self._process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        if not self.ended:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def load(self, settings: Settings) -> None:
        """Return once it listens. Raises ProviderFailed."""
        assert self._process.stdin
        assert self._process.stdout
        with suppress(ConnectionError):  # it has died: its exit code says more
            self._process.stdin.write(json.dumps(told(self.model, settings, self.key)).encode() + b"\n")
            await self._process.stdin.drain()
        async with asyncio.timeout(LOAD_MAX_S):
            line = await self._process.stdout.readline()
        try:
            document = json.loads(line)
            self.url = str(document["url"])
        except (ValueError, TypeError, KeyError):
            raise await self._not_loaded(line) from None

    async def _not_loaded(self, line: bytes) -> ProviderFailed:
        """`line`: what the child has said instead of where it listens."""
        died = await self.death()
        await asyncio.wait([self._listening], timeout=DEATH_S)
        said = {str(key): str(value) for key, value in _document(line).items()}
        if seen := LOAD_ERROR.search(self._words):
            said["error"] = seen[1].decode("utf-8", "replace")
        if "missing" in said:
            told = f"what runs models cannot be used: {quoted(said['missing'])}"
        else:
            why = said.get("error") or died or "its program said nothing that makes sense"
            told = f"{self.model.path.name} cannot be loaded: {quoted(why)}"
        code = self._process.returncode or 0
        struck = code < 0 and code != -signal.SIGILL  # as by a lack of memory: trying at once again would do harm
        return ProviderFailed(told, blame="provider" if struck else "setup", unspent=True)

    def _obituary(self) -> str:
        code = self._process.returncode
        if code == -signal.SIGILL:
            return "this processor lacks instructions that xllamacpp needs (AVX2, FMA, F16C)"
        if code == -signal.SIGKILL:
            return "its process was killed, perhaps because the machine ran out of memory"
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return f"its process has died ({name})"

    async def _listen(self) -> None:
        """What the child prints, into the actor's log."""
        assert self._process.stderr
        while said := await self._process.stderr.read(READ_BYTES):
            self._words = (self._words + said)[-WORDS_MAX_BYTES:]
            if self._logged < LOG_MAX_BYTES:
                self._logged += len(said)
                log.warning("%s (pid %d): %s", self.model.name, self.pid, said.decode("utf-8", "replace").strip())


def _document(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def started(model: Model, settings: Settings, lease: int) -> Child:
    """Load the model. Cancelled, or when it cannot be loaded, nothing is left. Raises ProviderFailed.

    `lease`: the descriptor that says that memory is taken; the child holds it for as long as it lives.
    """
    needed, free = model.memory(settings), models.free_memory()
    if needed > free:
        told = f"{model.name} needs about {needed // models.MIB:,} MB of memory, and {free // models.MIB:,} MB are free"
        raise ProviderFailed(told, blame="setup", unspent=True)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(PROGRAM), stdin=PIPE, stdout=PIPE, stderr=PIPE, pass_fds=(lease,), start_new_session=True
        )
    except OSError as wrong:
        raise ProviderFailed(f"no process can be started for {model.name}: {wrong.strerror}", unspent=True) from wrong
    child = Child(model, process, secrets.token_urlsafe(KEY_BYTES))
    try:
        await child.load(settings)
    except BaseException:
        await child.stop()
        raise
    return child


def told(model: Model, settings: Settings, key: str) -> dict[str, Any]:
    """What the program of the child is to know: its one line on stdin."""
    return {
        "path": str(model.path.resolve()),
        "name": model.name,
        "context": model.context(settings),
        "talks": models.TALKS,
        "answer": model.answer,
        "threads": threads(settings),
        "key": key,
    }


def threads(settings: Settings) -> int:
    """Processors that a model may use: all but one, for whoever waits for another's thread on a busy machine waits long."""
    wanted = round(settings.number("VX11_MODEL_THREADS", max(1, (os.cpu_count() or 1) - 1)))
    return min(THREADS_MAX, max(1, wanted))
