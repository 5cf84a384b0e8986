"""What starts actors on this machine: hears `activate`, has its zygote fork, and reports every start and every exit."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import os
import platform
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus import chaos
from bus.call import conversation
from bus.client import Bus
from bus.examine import watched
from bus.instance import CLEAN_EXITS, NO_ROOM
from bus.loading import find_actors, roots_of
from bus.moment import rfc3339_now
from bus.process import is_same
from bus.settings import Settings
from bus.start import Start
from bus.wire import Msg
from bus.zygote import LINE_BYTES, fork_zygote
from schemas.card import Card
from schemas.errors import Failure
from schemas.madre import Sleep
from schemas.power import Exited, Waking

log = logging.getLogger("vx11.host")

LOOK_S = 0.5
"""Between two looks at the source files: an edit is noticed within this time."""
CLOCK_NS = 20_000_000
"""What a file system's clock may be behind."""
CHANGED_SINCE = -1
"""Perhaps changed while it was being imported: it is looked at again."""
KNOWN_MOST = 1_000
PIPES_MOST = 8
"""In one reading; there is one spare at a time."""
DRAIN_S = 50.0
"""When the host stops its instances may finish for so long; the supervisor waits a little longer."""
DRAIN_AGAIN_S = 0.5
REGISTER_AGAIN_S = 0.5
LIGHT_BYTES = 8 * 1024 * 1024
LIGHT_S = 0.3
"""An actor whose import grows a process by more, or takes longer, is imported only by its own instances."""
PRELOAD_S = 0.6
"""All that a spare imports in advance takes no longer: until it is ready, each wake has to do with a fresh fork."""


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
    stamps: dict[str, int] = field(default_factory=dict)
    light_s: float = math.inf
    """How long its import takes, if it costs little enough for spares to do it in advance."""


class Host:
    """Runs in one process with one zygote. `name`: what orders to this host are addressed to."""

    def __init__(self, bus: Bus, zygote: socket.socket, settings: Settings, *, name: str = "") -> None:
        self.name = name or host_name()
        self._bus = bus
        self._roots = roots_of(settings)
        self._zygote = zygote
        self._heard_of_zygote = b""
        self._pipes: list[int] = []
        """That have come, and their word has not yet."""
        self._ids: OrderedDict[str, Run] = OrderedDict()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._sources: dict[str, Source] = {}
        self._asked_cards: dict[str, dict[str, int]] = {}
        """Actors that are being looked at, with how their files were when that was asked for."""
        self._delayed: dict[str, dict[str, Any]] = {}
        """Of each actor whose source has changed the activation that waits for its new card."""
        self._spare = (0, -1)
        """Pid of the parked process, and the pipe over which it is given its name; (0, -1) while there is none."""
        self._generation = 0
        """Of what spares have imported: one of an earlier generation may know what is no longer on disk."""
        self._lost = asyncio.Event()
        self._ended = asyncio.Event()
        """An instance has ended."""

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until the zygote is gone: then this process must end and be started afresh."""
        activations = await self._bus.listen("vx11.events.power.activate.*", self._heard_activate, queue="hosts")
        await self._bus.listen("vx11.host.*.*", self._heard_order)
        await self._bus.wire.barrier()
        self._zygote.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._zygote, self._read_zygote)
        looking = asyncio.create_task(self._look_for_ever())
        self._bus.wire.on_close.append(self._lost.set)  # for good: without the bus it hears of nothing
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._lost.wait())]
        try:
            await asyncio.wait([*waits, looking], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set() and not self._lost.is_set():
                await self._bus.wire.leave(activations)
                await self._drain_all()
        finally:
            loop.remove_reader(self._zygote)
            for task in (looking, *waits):
                task.cancel()
        if not stop.is_set():
            raise Failure("crashed", "the zygote or the connection is gone")

    async def _drain_all(self) -> None:
        """Let every instance finish its work and leave; what is left after DRAIN_S ends with the zygote."""
        alive = [run for run in self._runs.values() if run.code is None]
        asking = [asyncio.create_task(self._drain(run)) for run in alive]
        try:
            async with asyncio.timeout(DRAIN_S):
                while any(run.code is None for run in alive):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            log.warning("cut off after %g s: %s", DRAIN_S, ", ".join(run.start.actor for run in alive if run.code is None))
        finally:
            for task in asking:
                task.cancel()

    async def _drain(self, run: Run) -> None:
        """Ask madre until she has done it: an order may be lost with her, or with the server."""
        order = Sleep(name=run.start.actor, reason="its host stops", recall=False)
        while run.code is None:
            try:
                await self._bus.ask(order.subject, order.model_dump_json().encode(), timeout=DRAIN_S, idempotent=True)
            except Failure as failure:
                log.info("putting %s to sleep: %s", run.start.actor, failure)
            await asyncio.sleep(DRAIN_AGAIN_S)

    def _heard_activate(self, msg: Msg) -> None:
        """Start the actor, once per activation id; a known id is told again what became of it."""
        self._activate({**json.loads(msg.data), "headers": conversation(msg.headers)})

    def _activate(self, order: dict[str, Any]) -> None:
        name, id_ = order["actor"], order["id"]
        if run := self._ids.get(id_):
            self._tell(run)
            return
        source = self._sources.get(name)
        if source is None or source.card.get("error"):
            return  # not ours to start: another host may
        seen: dict[str, int] = {}
        if self._changed(source.stamps, seen):  # the spare and the card have what it was before
            self._delayed[name] = order
            self._look_at(name, seen)
            return
        start = Start(
            actor=name,
            id=id_,
            run=secrets.token_hex(6),
            revision=order["revision"],
            epoch=order["epoch"],
            host=self.name,
            record=order["record"],
            card_version=source.card["card_version"],
            headers=order["headers"],
        )
        run = Run(start)
        self._ids[id_] = self._runs[start.run] = run
        ended = [known for known, old in self._ids.items() if old.code is not None]
        for known in ended[: max(0, len(self._ids) - KNOWN_MOST)]:  # what lives is never forgotten
            self._runs.pop(self._ids.pop(known).start.run, None)
        chaos.point("host.starting")
        if not self._named(run):
            self._command({"op": "start", "start": vars(start)})

    def _named(self, run: Run) -> bool:
        """Give the spare its name, if there is one and it lives."""
        (pid, pipe), self._spare = self._spare, (0, -1)
        if not pid:
            return False
        try:
            os.write(pipe, json.dumps(vars(run.start)).encode() + b"\n")
        except OSError:
            return False
        finally:
            os.close(pipe)
        run.pid = pid
        self._tell(run)
        self._command({"op": "named", "pid": pid, "start": vars(run.start)})
        chaos.point("host.started")
        return True

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
            gone = Exited(
                actor=order["actor"], id=order["id"], run=order["run"], at=rfc3339_now(), reason="its host was started anew"
            )
            self._bus.tell(gone, subject=f"{Exited.subject}.{order['actor']}")

    def _tell(self, run: Run) -> None:
        start = run.start
        common = {"actor": start.actor, "id": start.id, "run": start.run, "at": rfc3339_now(), "pid": run.pid}
        if run.code is None:
            self._bus.tell(Waking(**common), subject=f"{Waking.subject}.{start.actor}", headers=start.headers)
            return
        clean = run.code in CLEAN_EXITS
        told = "the store has no room for its record" if run.code == NO_ROOM else f"its process ended with {run.code}"
        reason = "" if clean else f"{told}; {start.actor}.log has more"
        exited = Exited(**common, code=run.code, clean=clean, reason=reason, ended=run.ended)
        self._bus.tell(exited, subject=f"{Exited.subject}.{start.actor}")

    def _read_zygote(self) -> None:
        data, pipes, _, _ = socket.recv_fds(self._zygote, LINE_BYTES, PIPES_MOST)
        self._pipes += pipes
        if not data:
            self._lost.set()
            asyncio.get_running_loop().remove_reader(self._zygote)
            return
        *lines, self._heard_of_zygote = (self._heard_of_zygote + data).split(b"\n")
        for line in lines:
            self._heard_zygote(json.loads(line))

    def _heard_zygote(self, told: dict[str, Any]) -> None:
        if told["op"] == "card":
            self._heard_card(told)
            return
        if told["op"] == "spare" and self._pipes:  # without one we had no descriptor for it, and it ends
            spare = told["pid"], self._pipes.pop(0)
            if told["generation"] == self._generation:
                spare, self._spare = self._spare, spare  # one that we still had has died
            if spare[0]:
                os.close(spare[1])
            return
        run = self._runs.get(told.get("run", ""))
        if run is None:
            return
        run.pid = told["pid"]
        if told["op"] == "exited":
            chaos.point("host.exited")
            run.code, run.ended = told["code"], time.time()
            self._ended.set()
        else:
            chaos.point("host.started")
        self._tell(run)

    def _heard_card(self, told: dict[str, Any]) -> None:
        name = told["name"]
        asked = self._asked_cards.pop(name, {})
        stamps = {file: _stamp(file, before=told["begun"], known=asked.get(file)) for file in told["files"]}
        card = Card.model_validate(told["card"])
        light = told["dormant"] and told["grew"] < LIGHT_BYTES and told["took"] < LIGHT_S and not card.error
        if name not in find_actors(self._roots):
            stamps = {}  # it is looked at again when it is back
        self._sources[name] = Source(card.model_dump(mode="json"), stamps, told["took"] if light else math.inf)
        if card.error:
            log.error("%s cannot be loaded: %s", name, card.error)
        self._preload()
        asyncio.get_running_loop().create_task(self._register(self._sources[name].card))
        if order := self._delayed.pop(name, None):
            self._activate(order)

    def _preload(self) -> None:
        """What the spare has imported is no longer what is on disk: it ends with its pipe."""
        (pid, pipe), self._spare = self._spare, (0, -1)
        if pid:
            os.close(pipe)
        self._generation += 1
        self._command({"op": "preload", "names": self._light(), "generation": self._generation})

    def _light(self) -> list[str]:
        """What spares import in advance: the quickest first, and no more than PRELOAD_S of them."""
        costs = sorted((source.light_s, name) for name, source in self._sources.items())
        sums = itertools.accumulate(cost for cost, _ in costs)
        return sorted(name for (_, name), total in zip(costs, sums, strict=True) if total <= PRELOAD_S)

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
            seen: dict[str, int] = {}
            found = find_actors(self._roots)
            gone = [name for name, source in self._sources.items() if source.stamps and name not in found]
            for name in (*found, *gone):
                self._look_at(name, seen)
            await asyncio.sleep(LOOK_S)

    def _look_at(self, name: str, seen: dict[str, int]) -> None:
        """Have its card made anew when it is new or has changed."""
        source = self._sources.get(name)
        known = self._asked_cards.get(name) or (source.stamps if source else {})
        if not known or self._changed(known, seen):
            files = (source and source.stamps) or watched(name, self._roots)
            self._asked_cards[name] = {file: _stamp(file) for file in files}
            self._command({"op": "card", "name": name})

    def _changed(self, stamps: Mapping[str, int], seen: dict[str, int]) -> bool:
        """`seen`: the files that were looked at just now; actors share most of theirs."""
        for file in stamps:
            if file not in seen:
                seen[file] = _stamp(file)
        return any(seen[file] != stamp for file, stamp in stamps.items())

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
    chaos.arm(settings)
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


def _stamp(file: str | Path, *, before: int = 0, known: int | None = None) -> int:
    """The time of its last change, ns since the epoch. With `before`: CHANGED_SINCE unless the change is surely older.

    One in the future says nothing about that: it is `known` from before then, and not changed when it is the same.
    """
    try:
        changed = os.stat(file).st_mtime_ns  # noqa: PTH116 - four times as fast, for each file four times a second
    except OSError:
        return 0
    ahead = changed > time.time_ns() + CLOCK_NS
    doubtful = changed != known if ahead else changed > before - CLOCK_NS
    return CHANGED_SINCE if before and doubtful else changed
