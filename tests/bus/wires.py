"""What the tests of the wire and of all that stands on it share: connections, a request as a stock client makes it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bus.nats_server import NatsServer
from bus.wire import Msg, Wire

PATIENCE_S = 5.0


@asynccontextmanager
async def opened(server: NatsServer, user: str, *, reconnect_s: float = 0.02, buffered: bool = True) -> AsyncIterator[Wire]:
    """A connection as `user`, closed in any case."""
    wire = Wire()
    await wire.open(
        server.url, user=user, seed=server.seed_file(user), name=f"test-{user}", reconnect_s=reconnect_s, buffered=buffered
    )
    try:
        yield wire
    finally:
        await wire.aclose()


async def answered(wire: Wire, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Msg:
    """Ask as a stock client does; the first message that comes back, be it the server's word that nobody is there."""
    done: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
    token, reply = wire.await_answer(lambda msg: None if done.done() else done.set_result(msg))
    try:
        wire.send(subject, body, reply=reply, headers=headers)
        return await asyncio.wait_for(done, PATIENCE_S)
    finally:
        wire.forget_answer(token)


def count_into(got: list[bytes]) -> Callable[[Msg], None]:
    """A handler that writes down the bodies."""
    return lambda msg: got.append(msg.data)


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread stands still: the signal alone takes effect when it likes."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + PATIENCE_S
    while not _stands_still(pid):
        assert time.monotonic() < end, f"process {pid} does not stop"
        time.sleep(0.001)


def thaw(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.iterdir())
