"""`python -m actors.keeper.replayer`: the process of one replay. Orders come in as lines of JSON, its status goes out as such.

The first line says what to play and over which connection; the end of its input ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from bus.client import Bus
from bus.replay import Replay
from bus.supervisor import start_logging
from schemas.errors import Failure
from schemas.replay import StartReplay

TELL_S = 0.25
"""Between two lines about a replay that goes on."""
NICE = 5
"""What goes as fast as it can gives way to those who have work."""
LINE_BYTES_MOST = 1024 * 1024


async def play(orders: asyncio.StreamReader) -> None:
    """From the first line to the summary, which is the last one that goes out."""
    start: dict[str, Any] = json.loads(await orders.readline())
    seed = Path(start["seed"]) if start["seed"] else None
    wanted = StartReplay.model_validate(start["wanted"])
    if wanted.pace == "max":
        os.nice(NICE)
    async with Bus.connect(start["url"], user="keeper", seed=seed, name=f"replay-{wanted.id}", buffered=False) as bus:
        replay = Replay(bus, wanted)
        playing = asyncio.create_task(replay.run())
        listening = asyncio.create_task(_listen(orders, replay))
        try:
            while not playing.done():
                tell(status=replay.status.model_dump(mode="json"))
                await asyncio.wait((playing,), timeout=TELL_S)
            tell(status=playing.result().model_dump(mode="json"), ended=True)
        finally:
            for task in (playing, listening):
                task.cancel()
            await asyncio.gather(playing, listening, return_exceptions=True)


async def _listen(orders: asyncio.StreamReader, replay: Replay) -> None:
    while line := await orders.readline():
        order = json.loads(line)
        refused: dict[str, Any] | None = None
        try:
            obey(replay, order)
        except Failure as failure:
            refused = {"code": failure.code, "message": failure.message}
        await asyncio.sleep(0)
        tell(status=replay.status.model_dump(mode="json"), heard=order["n"], refused=refused)
    replay.stop()


def obey(replay: Replay, order: dict[str, Any]) -> None:
    """Raises Failure for what does not fit its state."""
    match order["do"]:
        case "pause":
            replay.pause()
        case "resume":
            replay.resume(order["pace"])
        case "step":
            replay.step(order["count"])
        case "stop":
            replay.stop()


def tell(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def _main() -> int:
    orders = asyncio.StreamReader(limit=LINE_BYTES_MOST)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    try:
        await play(orders)
    except Failure as failure:
        tell(failed={"code": failure.code, "message": failure.message})
        return 1
    return 0


if __name__ == "__main__":
    start_logging()
    with contextlib.suppress(BrokenPipeError):  # the keeper has gone: nobody wants to know any more
        sys.exit(asyncio.run(_main()))
