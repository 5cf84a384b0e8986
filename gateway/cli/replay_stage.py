"""A replay at the command line: what it does is shown as it does it, what is typed is obeyed, a summary ends it."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway.cli.replay_keys import HELP, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bus.client import Bus
    from bus.replay import Replay
    from bus.wire import Msg
    from gateway.cli.desk import Desk
    from schemas.replay import ReplayStatus, StartReplay

SHOW_S = 0.2
"""How often the line of progress is drawn."""
CLEAR_LINE = "\r\x1b[K"
BODY_CHARS = 160
FAILED_EXIT = 69
GAPS_SHOWN = 8


async def play(desk: Desk, bus: Bus, wanted: StartReplay, *, show: bool) -> int:
    """Play to the end; the exit code. Raises Failure for what cannot be begun."""
    from bus.replay import Replay

    replay = Replay(bus, wanted)
    if not wanted.dry_run and not desk.screen.json:
        _say_where(desk, replay)
    async with _shown(desk, bus, replay, show=show):
        summary = await _until_end(desk, replay, lines=wanted.pace == "step")
    desk.screen.data(summary.model_dump(mode="json"), lambda: _draw(desk, summary))
    return FAILED_EXIT if summary.state == "failed" else 0


async def _until_end(desk: Desk, replay: Replay, *, lines: bool) -> ReplayStatus:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, replay.stop)
    playing = asyncio.create_task(replay.run())
    try:
        with listening(replay, lines=lines) as keys:
            if keys and not desk.screen.json:
                desk.screen.talk(HELP, style="dim")
            while not playing.done():
                await asyncio.wait((playing,), timeout=SHOW_S)
                _draw_progress(replay.status)
        return playing.result()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        if sys.stderr.isatty():
            sys.stderr.write(CLEAR_LINE)


def _say_where(desk: Desk, replay: Replay) -> None:
    status = replay.status
    if status.target == "live":
        desk.screen.talk("playing to the live subjects: whoever acts on these events acts again")
        return
    desk.screen.talk(f"playing into {status.target}>")
    watch = f"nats sub '{status.target}>'"
    desk.screen.advise(
        [(watch, "hear it (vx11 nats-context makes the context)"), ("vx11 replay --id NAME", "under a name of yours")]
    )


@asynccontextmanager
async def _shown(desk: Desk, bus: Bus, replay: Replay, *, show: bool) -> AsyncIterator[None]:
    """Print what is played: heard from the bus, as anybody would hear it."""
    target = replay.status.target
    if not show or not target:
        yield
        return
    live = target == "live"
    own = f"{replay.id}:"

    def heard(msg: Msg) -> None:
        headers = msg.headers or {}
        if headers.get("vx11-replay-of", "").startswith(own):
            _show(desk, msg.subject if live else msg.subject.removeprefix(target), headers, msg.data)

    subscription = await bus.listen("vx11.events.>" if live else f"{target}>", heard)
    await bus.wire.barrier()
    try:
        yield
        await bus.wire.barrier()
    finally:
        await bus.wire.leave(subscription)


def _show(desk: Desk, subject: str, headers: Any, body: bytes) -> None:
    text = body.decode(errors="replace")
    sequence, moment = int(headers["vx11-original-sequence"]), headers["vx11-original-time"]
    if sys.stderr.isatty():
        sys.stderr.write(CLEAR_LINE)
        sys.stderr.flush()
    if desk.screen.json:
        desk.screen.json_line({"sequence": sequence, "at": moment, "subject": subject, "headers": dict(headers), "body": text})
        return
    shown = text if len(text) <= BODY_CHARS else f"{text[:BODY_CHARS]}…"
    desk.screen.line(f"{sequence:>8}  {moment[:23]}Z  {subject}  {shown}".replace("\n", " "))
    sys.stdout.flush()


def _draw_progress(status: ReplayStatus) -> None:
    """One line that is drawn over, on a terminal only."""
    if not sys.stderr.isatty():
        return
    from gateway.cli.amount import lasting

    reach = max(1, status.last - status.first + 1)
    done = max(0, min(reach, status.position - status.first + 1))
    pace = f"{status.pace:g}x" if isinstance(status.pace, float) else status.pace
    at = f"  at {status.position_at[:23]}Z" if status.position_at else ""
    line = f"{status.state}  {100 * done // reach} %  {status.events:,} events  {pace}{at}  {lasting(status.took_s)}"
    sys.stderr.write(f"{CLEAR_LINE}{line}")
    sys.stderr.flush()


def _draw(desk: Desk, status: ReplayStatus) -> None:
    from gateway.cli.amount import lasting, size

    line = desk.screen.line
    if status.state == "done" and not (status.events or status.skipped or status.missing):
        span = f"sequences {status.first} to {status.last}" if status.first <= status.last else ""
        line(f"replayed 0 events: {f'nothing in {span} matches' if span else 'the log has nothing in that range'}")
        for text in status.told:
            line(f"  note       {text}")
        return
    did = {"done": "replayed", "stopped": "stopped after", "failed": "failed after"}[status.state]
    where = (
        f" into {status.target}>" if status.target.endswith(".") else f" {status.target}" if status.target else ", nothing sent"
    )
    line(f"{did} {status.events:,} events ({size(status.bytes)}) of sequences {status.first} to {status.last}{where}")
    rate = f", {status.events / status.took_s:,.0f} a second" if status.took_s > 0 else ""
    line(f"  took       {lasting(status.took_s)}{rate}; they were recorded in {lasting(status.recorded_s)}")
    if status.wanted_s:
        line(
            f"  wanted     {lasting(status.wanted_s)}; late by {status.error_p50_ms:g} ms (p50), {status.error_p99_ms:g} ms (p99)"
        )
    if status.skipped:
        line("  skipped    " + ", ".join(f"{number} {why}" for why, number in status.skipped.items()))
    if status.missing:
        ranges = [f"{gap.first}" if gap.first == gap.last else f"{gap.first} to {gap.last}" for gap in status.gaps]
        more = ", …" if len(ranges) > GAPS_SHOWN else ""
        line(f"  missing    {status.missing} that are not in the log any more: {', '.join(ranges[:GAPS_SHOWN])}{more}")
    if status.breaks:
        line(f"  breaks     the connection was lost {status.breaks} times; {status.repeated} events were sent a second time")
    for text in status.told:
        line(f"  note       {text}")
    if status.error:
        desk.screen.talk(f"  {status.error}", style="red")
    elif status.state == "stopped":
        line(f"  go on      the same with --seq {status.position + 1}..{status.last}")
