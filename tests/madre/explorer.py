"""Visits every state that a small world can reach, shortest paths first, and looks for ways into states without a way out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from actors.madre.effects import Held
from actors.madre.power import BEATS_MISSED_S
from tests.madre.cast import Ask, Madre
from tests.madre.motion import Step
from tests.madre.network import Config, TooMany, Violation
from tests.madre.processes import Instance
from tests.madre.world import World


@dataclass
class Found:
    """`violation` with the path to it; `stuck`: the path to a state from which the system alone never gets quiet."""

    states: int = 0
    transitions: int = 0
    complete: bool = True
    cut: int = 0
    violation: str = ""
    path: list[Step] = field(default_factory=list)
    stuck: list[Step] = field(default_factory=list)
    secs: float = 0.0


def explore(config: Config, *, most: int = 1_000_000) -> Found:
    """Every state within the bounds of `config`, at most `most`."""
    begun = time.monotonic()
    first = World(config)
    found, known = Found(), {hash(key(first)): 0}
    parents: list[tuple[int, Step]] = [(0, ("start",))]
    back: list[list[int]] = [[]]
    """Of each state those from which the system alone can come to it."""
    good: list[int] = []
    todo = deque([(0, first)])
    while todo:
        number, world = todo.popleft()
        if not world.unrest():
            good.append(number)
        steps = world.steps()
        for step in (*steps, *world.faults()):
            found.transitions += 1
            after = world.copy()
            try:
                after.do(step)
                if not after.unrest():
                    after.check_end()
            except TooMany:
                found.cut += 1
                good.append(number)  # not judged
                continue
            except (Violation, AssertionError) as violation:
                found.violation, found.path = str(violation) or repr(violation), [*_path(parents, number), step]
                found.states, found.secs = len(parents), time.monotonic() - begun
                return found
            name = hash(key(after))
            if (at := known.get(name)) is None:
                at = known[name] = len(parents)
                parents.append((number, step))
                back.append([])
                if len(parents) > most:
                    found.complete = False
                else:
                    todo.append((at, after))
            if step[0][0] != "!":
                back[at].append(number)
    found.states = len(parents)
    if found.complete:
        found.stuck = _stuck(back, good, parents)
    found.secs = time.monotonic() - begun
    return found


def _path(parents: list[tuple[int, Step]], number: int) -> list[Step]:
    path: list[Step] = []
    while number:
        number, step = parents[number]
        path.append(step)
    return path[::-1]


def _stuck(back: list[list[int]], good: list[int], parents: list[tuple[int, Step]]) -> list[Step]:
    fine = set(good)
    todo = list(fine)
    while todo:
        for before in back[todo.pop()]:
            if before not in fine:
                fine.add(before)
                todo.append(before)
    bad = next((n for n in range(len(back)) if n not in fine), None)
    return [] if bad is None else _path(parents, bad)


def key(world: World) -> Any:
    """What distinguishes two states: no times, and names in the order in which they are met instead of counters."""
    ids: dict[str, int] = {}
    name = lambda text: ids.setdefault(text, len(ids)) if text else -1
    record = world.record
    return (
        tuple(_madre(m, world, name) for m in world.madres),
        (record.epoch, record.owner, name(record.instance), record.host, record.state),
        tuple(_instance(i, world, name) for i in world.instances),
        tuple((_line(h.out, world, name), tuple(map(name, h.known)), h.registering) for h in world.hosts),
        tuple(_ask(a, world) for a in world.asks),
        (world.shared, world.private, world.callers_connected, world.allowed),
        (tuple(world.left.values()), world.losing, world.struck, world.excused, world.wish),
    )


def _madre(m: Madre, world: World, name: Any) -> Any:
    if not m.alive:
        return (False, m.connected, _line(m.out, world, name))
    p, now, revision = m.power, world.now, world.record.revision
    rank = _ranks(world, m.name)
    store = m.storing and (m.storing[:2], m.storing[0] == "swap" and m.storing[2] - revision)
    return (
        (m.connected, m.frozen, m.stale, m.late, m.sub, _requests(m.left, {}), store, bool(m.token), m.buried),
        tuple((kind, generation == p.generation) for kind, generation in m.turns),
        _line(m.out, world, name, rank),
        _line(m.inn, world, name, rank, token=m.token),
        (p.state, p.phase, p.epoch, p.revision - revision, name(p.id), p.run, p.host, p.stay),
        (p.recall, p.clean, p.wanted, p.standing, p.opened, p.lapsed, p.fresh, min(p.crashes, 4), p.beat.answered > 0),
        (_requests(p.held, rank), _requests(p.forwarded, rank), p.limit_at <= now, p.last_beat < now - BEATS_MISSED_S),
    )


def _requests(held: Iterable[Held], rank: dict[int, int]) -> Any:
    return tuple((h.verb, h.headers["again"], h.kills, rank.get(h.n)) for h in held)


def _ask(a: Ask, world: World) -> Any:
    """Of the moment at which it was sent only what that is compared with, if it ever is."""
    marks: list[int] = []
    if world.config.budget.keys() & {"mcrash", "stop"}:
        marks = [m.announced for m in world.madres] + [i.alone_since for i in world.instances if i.alive]
    return (
        (a.status, a.again, a.marked, a.crashes, a.outcome, a.handled, min(a.answered, 2), a.owner, bool(a.sent)),
        tuple(mark < a.sent for mark in [*marks, world.record.vacated][: len(marks) + 1 if marks else 0]),
    )


def _instance(i: Instance, world: World, name: Any) -> Any:
    if not i.alive:
        return (name(i.id), i.host, i.clean, _line(i.out, world, name))
    claim = i.revision - world.record.revision if i.phase == "born" else 0
    known = tuple(sorted((r, code, connection == i.reconnects) for r, (code, connection) in i.known.items()))
    return (
        (name(i.id), i.host, i.phase, claim, i.epoch, i.stay, i.asked, i.want, i.orders, i.shared, i.private),
        (i.work, i.doubts, known, i.answered, i.connected, i.frozen, bool(i.token)),
        _line(i.out, world, name),
        _line(i.inn, world, name, token=i.token),
    )


def _line(line: tuple[Any, ...], world: World, name: Any, rank: Any = None, *, token: int | None = None) -> Any:
    """What waits on one connection. Of an echo that has come only whether it is the one that is waited for."""
    return tuple(m[1] == token if m[0] == "echo" and token is not None else _said(m, world, name, rank) for m in line)


def _said(message: Any, world: World, name: Any, rank: Any = None) -> Any:
    """A message without its counters."""
    kind = message[0]
    if kind in ("echo", "started"):
        return kind
    if kind == "activate":
        return (kind, name(message[1]), message[2] - world.record.revision, message[3])
    if kind == "fwd":
        at = 2 if isinstance(message[1], str) else 1
        ranks = rank if rank is not None else _ranks(world, message[-1])
        return (*message[:at], ranks.get(message[at], -1), *message[at + 1 :])
    if kind == "ack":
        ranks = rank if rank is not None else _ranks(world, message[1])
        return (kind, *(ranks.get(x, -1) if isinstance(x, int) else x for x in message[1:]))
    if kind == "active":
        return (kind, name(message[1]), message[2], message[4:])
    if kind == "exited":
        return (kind, name(message[1]), *message[2:])
    if kind == "askhost":
        return (kind, message[1], *message[3:])
    return message


def _ranks(world: World, madre: str) -> dict[int, int]:
    power = world.part(madre).power
    return {n: i for i, n in enumerate(sorted({h.n for h in power.held} | {h.n for h in power.forwarded}))}
