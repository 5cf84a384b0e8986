"""What starts actors on this machine: hears `activate`, has its zygote fork, and reports every start and every exit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import platform
import secrets
import socket
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bus.client import Bus
from bus.examine import watched
from bus.instance import CLEAN_EXITS, Start
from bus.loading import find_actors, roots_of
from bus.process import is_same
from bus.settings import Settings
from bus.wire import Msg
from bus.zygote import fork_zygote
from schemas.card import Card
from schemas.errors import Failure
from schemas.madre import Sleep
from schemas.power import Exited, Waking

log = logging.getLogger("vx11.host")

LOOK_S = 0.25
"""Between two looks at the source files: an edit is noticed within this time."""
CLOCK_NS = 20_000_000
"""What a file system's clock may be behind."""
CHANGED_SINCE = -1
"""Perhaps changed while it was being imported: it is looked at again."""
KNOWN_MOST = 1_000
DRAIN_S = 50.0
"""When the host stops its instances may finish for so long; the supervisor waits a little longer."""
REGISTER_AGAIN_S = 0.5
LIGHT_BYTES = 8 * 1024 * 1024
"""An actor whose import grows a process by more is imported only by its own instances."""


@dataclass
class Run:
    """One process that was started, and what became of it."""

    start: Start
    pid: int = 0
    code: int | None = None
    ended: float = 0.0


@dataclass
class Source:
    """An actor's card and the files that it was made from."""

    card: dict[str, Any]
    stamps: dict[Path, int] = field(default_factory=dict)
    light: bool = False
    """Importing it costs little memory, so that spares may do so in advance."""


class Host:
    """Runs in one process with one zygote. `name`: what orders to this host are addressed to."""

    def __init__(self, bus: Bus, zygote: socket.socket, settings: Settings, *, name: str = "") -> None:
        self.name = name or host_name()
        self._bus = bus
        self._settings = settings
        self._roots = roots_of(settings)
        self._zygote = zygote
        self._ids: OrderedDict[str, Run] = OrderedDict()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._sources: dict[str, Source] = {}
        self._asked_cards: dict[str, dict[Path, int]] = {}
        """Actors that are being looked at, with how their files were when that was asked for."""
        self._lost = asyncio.Event()
        self._ended = asyncio.Event()
        """An instance has ended."""

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until the zygote is gone: then this process must end and be started afresh."""
        activations = await self._bus.listen("vx11.events.power.activate.*", self._heard_activate, queue="hosts")
        await self._bus.listen("vx11.host.*.*", self._heard_order)
        await self._bus.wire.barrier()
        self._zygote.setblocking(False)
        reading = asyncio.create_task(self._read_zygote())
        looking = asyncio.create_task(self._look_for_ever())
        self._bus.wire.on_close.append(self._lost.set)  # for good: without the bus it hears of nothing
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._lost.wait())]
        try:
            await asyncio.wait([*waits, reading, looking], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set() and not self._lost.is_set():
                await self._bus.wire.leave(activations)
                await self._drain_all()
        finally:
            for task in (reading, looking, *waits):
                task.cancel()
        if not stop.is_set():
            raise Failure("crashed", "the zygote or the connection is gone")

    async def _drain_all(self) -> None:
        """Let every instance finish its work and leave; what is left after DRAIN_S ends with the zygote."""
        alive = [run for run in self._runs.values() if run.code is None]
        for run in alive:
            sleep = Sleep(name=run.start.actor, reason="its host stops", recall=False)
            self._bus.wire.send(sleep.subject, sleep.model_dump_json().encode())
        end = asyncio.get_running_loop().time() + DRAIN_S
        while left := [run.start.actor for run in alive if run.code is None]:
            if asyncio.get_running_loop().time() > end:
                log.warning("cut off after %g s: %s", DRAIN_S, ", ".join(left))
                return
            self._ended.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 1.0)

    def _heard_activate(self, msg: Msg) -> None:
        """Start the actor, once per activation id; a known id is told again what became of it."""
        order = json.loads(msg.data)
        name, id_ = order["actor"], order["id"]
        if run := self._ids.get(id_):
            self._tell(run)
            return
        source = self._sources.get(name)
        if source is None or source.card.get("error"):
            return  # not ours to start: another host may
        start = Start(
            actor=name,
            id=id_,
            run=secrets.token_hex(6),
            revision=order["revision"],
            epoch=order["epoch"],
            host=self.name,
            record=order["record"],
            card_version=source.card["card_version"],
        )
        run = Run(start)
        self._ids[id_] = self._runs[start.run] = run
        ended = [known for known, old in self._ids.items() if old.code is not None]
        for known in ended[: max(0, len(self._ids) - KNOWN_MOST)]:  # what lives is never forgotten
            self._runs.pop(self._ids.pop(known).start.run, None)
        self._command({"op": "start", "start": asdict(start)})

    def _heard_order(self, msg: Msg) -> None:
        _, _, host, verb = msg.subject.split(".")
        if host not in (self.name, "all"):
            return
        if verb == "cards":
            for source in self._sources.values():
                asyncio.get_running_loop().create_task(self._register(source.card))
        elif verb == "ask":
            self._heard_ask(json.loads(msg.data))

    def _heard_ask(self, order: dict[str, Any]) -> None:
        """What became of a run? Only a death is told; `kill` makes it one."""
        run = self._runs.get(order["run"])
        if run and run.code is not None:
            self._tell(run)
        elif run and order.get("kill"):
            log.warning("killing %s (%s): %s", order["actor"], order["run"], "ordered by madre")
            self._command({"op": "kill", "run": order["run"]})
        elif not run and not is_same(int(order.get("pid", 0)), float(order.get("born", 0.0))):
            gone = Exited(actor=order["actor"], id=order["id"], run=order["run"], at=_now(), reason="its host was started anew")
            self._bus.tell(gone, subject=f"{Exited.subject}.{order['actor']}")

    def _tell(self, run: Run) -> None:
        start = run.start
        common = {"actor": start.actor, "id": start.id, "run": start.run, "at": _now(), "pid": run.pid}
        if run.code is None:
            self._bus.tell(Waking(**common), subject=f"{Waking.subject}.{start.actor}")
            return
        clean = run.code in CLEAN_EXITS
        reason = "" if clean else f"its process ended with {run.code}; {start.actor}.log has more"
        exited = Exited(**common, code=run.code, clean=clean, reason=reason, ended=run.ended)
        self._bus.tell(exited, subject=f"{Exited.subject}.{start.actor}")

    async def _read_zygote(self) -> None:
        loop, buffer = asyncio.get_running_loop(), b""
        while True:
            data = await loop.sock_recv(self._zygote, 1_048_576)
            if not data:
                self._lost.set()
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._heard_zygote(json.loads(line))

    def _heard_zygote(self, told: dict[str, Any]) -> None:
        if told["op"] == "card":
            self._heard_card(told)
            return
        run = self._runs.get(told["run"])
        if run is None:
            return
        run.pid = told["pid"]
        if told["op"] == "exited":
            run.code, run.ended = told["code"], time.time()
            self._ended.set()
        self._tell(run)

    def _heard_card(self, told: dict[str, Any]) -> None:
        name = told["name"]
        self._asked_cards.pop(name, None)
        stamps = {Path(file): _stamp(Path(file), before=told["begun"]) for file in told["files"]}
        card = Card.model_validate(told["card"])
        self._sources[name] = Source(card.model_dump(mode="json"), stamps, told.get("grew", 0) < LIGHT_BYTES)
        if card.error:
            log.error("%s cannot be loaded: %s", name, card.error)
        light = [n for n, source in sorted(self._sources.items()) if source.light and not source.card.get("error")]
        self._command({"op": "preload", "names": light})
        asyncio.get_running_loop().create_task(self._register(self._sources[name].card))

    async def _register(self, card: dict[str, Any]) -> None:
        """Tell madre, until she has it: she stands in only for what she knows."""
        body = json.dumps({"card": card, "host": self.name}).encode()
        while self._sources[card["name"]].card is card:  # else a later one is on its way
            try:
                await self._bus.ask("vx11.madre.register", body, timeout=5.0, idempotent=True)
                return
            except Failure as failure:
                log.info("registering %s: %s", card["name"], failure)
                if failure.code in ("invalid", "conflict"):
                    return
                await asyncio.sleep(REGISTER_AGAIN_S)

    async def _look_for_ever(self) -> None:
        """Notice new actors and changed files."""
        while True:
            for name in find_actors(self._roots):
                source = self._sources.get(name)
                known = self._asked_cards.get(name) or (source.stamps if source else {})
                if not known or any(_stamp(file) != stamp for file, stamp in known.items()):
                    files = source.stamps if source else map(Path, watched(name, self._roots))
                    self._asked_cards[name] = {file: _stamp(file) for file in files}
                    self._command({"op": "card", "name": name})
            await asyncio.sleep(LOOK_S)

    def _command(self, order: dict[str, Any]) -> None:
        """One line to the zygote. Its socket takes far more than is ever outstanding."""
        self._zygote.setblocking(True)
        try:
            self._zygote.sendall(json.dumps(order).encode() + b"\n")
        except OSError as error:
            log.error("the zygote does not listen: %s", error)
            self._lost.set()
        finally:
            self._zygote.setblocking(False)


def host_name() -> str:
    """This machine's name as one subject token."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in platform.node()) or "host"


def run(settings: Settings, url: str) -> int:
    """Fork the zygote, then serve as the host until SIGTERM. For a process without a loop or threads."""
    pid, zygote = fork_zygote(url, settings, roots_of(settings))
    log.info("host %s with zygote %d", host_name(), pid)
    return asyncio.run(_main(settings, url, zygote))


async def _main(settings: Settings, url: str, zygote: socket.socket) -> int:
    import signal

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seed = settings.seed_file("host")
    async with Bus.connect(url, user="host", seed=seed if seed.exists() else None, name="host") as bus:
        try:
            await Host(bus, zygote, settings).serve(stop)
        except Failure as failure:
            log.error("%s", failure)
            return 1
    return 0


def _stamp(file: Path, *, before: int = 0) -> int:
    """The time of its last change. With `before`, ns since the epoch: CHANGED_SINCE unless the change is surely older."""
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        return 0
    return CHANGED_SINCE if before and changed > before - CLOCK_NS else changed


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
