"""The small world in motion: what each of its parts can do next, and what that leads to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from actors.madre.effects import Beat
from actors.madre.power import BEATS_MISSED_S, OWNED
from tests.madre.cast import Ask, Madre, record_of
from tests.madre.network import Network
from tests.madre.processes import Instance

Step = tuple[Any, ...]


class Motion(Network):
    """Steps are tuples, a name and its arguments, so that a path through the world can be kept and walked again."""

    left: dict[str, int]

    # -- what can come next -------------------------------------------------------------------------------------------

    def steps(self, *, timers: bool = True) -> list[Step]:
        """What the system does by itself, callers included."""
        found = [step for ask in self.asks for step in self._sends(ask)]
        for part in self.parts:
            found += [("serve", part.name, taker) for taker in self.takers(part)]
            if part.alive and not part.connected:
                found.append(("reconnect", part.name))
        for madre in self.madres:
            found += self._madre_steps(madre, timers)
        for instance in self.instances:
            found += self._instance_steps(instance)
        found += [("register", host.name) for host in self.hosts if host.registering and self._speaker()]
        if not self.callers_connected:
            found.append(("callers",))
        if not any(m.alive or m.out for m in self.madres):
            found.append(("madre",))
        return found

    def _sends(self, ask: Ask) -> Iterator[Step]:
        plain = ask.status == "nobody" or (ask.status == "new" and not self.is_nested(ask.r))
        if not (plain or ask.marked):
            return
        if ask.owner:
            yield ("resend", ask.r)
        elif self.callers_connected:
            for taker in self.shared or ("",):
                yield ("send", ask.r, taker)

    def _madre_steps(self, madre: Madre, timers: bool) -> Iterator[Step]:
        name = madre.name
        if madre.frozen and self.madres[-1] is not madre:
            yield ("thaw", name)
        if not madre.alive or madre.frozen:
            return
        if madre.storing:
            if madre.connected:
                yield ("store", name)
            return
        if madre.inn:
            yield ("read", name)
        if madre.stale:
            return
        if madre.late:
            yield ("late", name)
        if timers:
            for kind in self._timers(madre):
                yield ("timer", name, kind)
            run = self._beating(madre)
            news = run and run.answered and madre.power.crashes and not madre.power.beat.answered
            if run and (news or madre.power.last_beat < self.now - BEATS_MISSED_S):
                yield ("beat", name)

    def _beating(self, madre: Madre) -> Instance | None:
        run: Instance | None = self.part(madre.power.run) if madre.power.run else None
        beats = run and run.alive and run.connected and not run.frozen and run.phase not in ("born", "proving")
        return run if beats else None

    def _timers(self, madre: Madre) -> Iterator[Any]:
        """Timers that may fire; none whose last word is still on its way: repeats do not pile up."""
        power = madre.power
        run: Instance | None = self.part(power.run) if power.run else None
        coming = {m[0] for m in (*madre.inn, *madre.out)} | {m[0] for h in self.hosts for m in h.out}
        going = {m[0] for m in (*run.inn, *run.out)} if run else set()
        if power.state == "waking":
            if not coming & {"activate", "active", "exited"}:
                yield "again"
            yield "look"
            if any(i.frozen and i.phase == "born" and i.id == power.id for i in self.instances):
                yield "limit"
        elif power.phase in ("drain", "staying") and not (coming | going) & {"order", "active", "slept"}:
            yield "again"
        if power.phase == "burying" or power.state == "failed":
            yield "limit"
        elif power.phase in ("drain", "staying", "opening") and not coming & {"exited", "askhost"}:
            yield "look"
        if power.state in ("handover", "active", "draining") and not (coming | going) & {"fwd", "ack"}:
            yield from (held.n for held in power.forwarded)
        gone = run is None or not run.alive or run.frozen
        silent = power.last_beat < self.now - BEATS_MISSED_S
        if (
            power.state in OWNED
            and power.phase != "burying"
            and gone
            and not silent
            and not (coming | going) & {"exited", "slept"}
        ):
            yield "beats"

    def _instance_steps(self, i: Instance) -> Iterator[Step]:
        if not i.alive or i.frozen:
            return
        if i.inn:
            yield ("read", i.name)
        if i.phase == "born" and i.connected:
            yield ("claim", i.name)
        if i.phase == "closing" and not i.work:
            yield ("exit", i.name)
        for r in i.doubts:
            yield ("disown", i.name, r)
        for r in i.work:
            nested = self.config.nested
            inner = self.asks[nested[1]] if nested and nested[0] == r else None
            if inner and inner.status == "new":
                yield ("nest", i.name, inner.r)
            elif inner is None or inner.status == "done":
                yield ("finish", i.name, r)

    def _speaker(self) -> Madre | None:
        """The madre that is on the bus."""
        return next((m for m in reversed(self.madres) if m.alive and m.connected and not m.stale and not m.frozen), None)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _do_send(self, r: int, taker: str) -> None:
        ask = self._sent(r)
        self.route(r, ask.again, taker, asker=ask)

    def _sent(self, r: int) -> Ask:
        ask = self.asks[r]
        if not ask.sent:
            self.moments += 1
            ask.sent = self.moments
        ask.status, ask.marked = "out", False
        return ask

    def _do_resend(self, r: int) -> None:
        ask = self._sent(r)
        self.part(ask.owner).say("req", r, ask.again)

    def _do_nest(self, name: str, r: int) -> None:
        self.asks[r].owner = name
        self._do_resend(r)

    def _do_serve(self, name: str, taker: str) -> None:
        self.serve(name, taker)

    def _do_callers(self) -> None:
        self.callers_connected = True
        self._mark("1")

    def _do_register(self, name: str) -> None:
        self.part(name).registering = False
        speaker = self._speaker()
        assert speaker
        speaker.inn = (*speaker.inn, ("registered",))

    def _do_read(self, name: str) -> None:
        part = self.part(name)
        message, part.inn = part.inn[0], part.inn[1:]
        if isinstance(part, Madre):
            part.now = self.now
            part.hear(message, self.asks)
        else:
            part.hear(message, self.asks, self.config.long)

    def _do_claim(self, name: str) -> None:
        i = self.part(name)
        if self.record.revision == i.revision:
            self.record = replace(self.record, revision=i.revision + 1, owner=name, instance=i.id, host=i.host, state="waking")
            i.claimed(self.record.revision, self.record.vacated)
        else:
            self.end(i, clean=True)

    def _do_exit(self, name: str) -> None:
        i = self.part(name)
        for r in i.doubts:
            i.disown(r)
        i.say("slept", name)
        self.end(i, clean=True)

    def _do_disown(self, name: str, r: int) -> None:
        self.part(name).disown(r)

    def _do_finish(self, name: str, r: int) -> None:
        self.part(name).finish(r)

    def _do_beat(self, name: str) -> None:
        madre = self.part(name)
        run = self._beating(madre)
        assert run
        madre.power.beaten(Beat(run.name, answered=int(run.answered)), self.now)

    def _do_store(self, name: str) -> None:
        madre = self.part(name)
        op, madre.storing, madre.now = madre.storing, None, self.now
        if op[0] == "look":
            found = record_of(vars(self.record))
            madre.move(lambda: madre.power.read(found, self.record.revision, self.now))
            return
        _, purpose, revision, written = op
        done = revision == self.record.revision
        if done:
            self.moments += purpose == "release"
            vacated = self.moments if purpose == "release" else self.record.vacated
            self.record = replace(self.record, revision=revision + 1, vacated=vacated, **written)
        madre.move(lambda: madre.power.swapped(purpose, self.record.revision if done else None, self.now))

    def _do_late(self, name: str) -> None:
        """She stood still: nobody's silence counts, and she looks whether another one has come."""
        madre = self.part(name)
        madre.late, madre.now = False, self.now
        madre.move(lambda: madre.power.late(self.now))
        if madre.epoch < self.record.epoch:
            madre.step_down()

    def _do_madre(self) -> None:
        """A new madre raises the epoch of the record and takes the actor over."""
        epoch = self.record.epoch + 1
        self.record = replace(self.record, revision=self.record.revision + 1, epoch=epoch)
        made = Madre(f"M{len(self.madres)}", epoch, self.record.revision)
        made.now = self.now
        self.madres.append(made)
        found = record_of(vars(self.record))
        made.move(lambda: made.power.adopt(found, self.record.revision, self.now))
        self.moments += 1
        made.announced = self.moments
        if len(self.madres) > 1:
            made.say("started", made.announced)

    def _do_timer(self, name: str, kind: Any) -> None:
        """Make one timer due, then let the clock look."""
        madre = self.part(name)
        power, madre.now = madre.power, self.now
        if kind == "again":
            power.repeat_at = self.now
        elif kind == "look":
            power.look_at = self.now
        elif kind == "limit":
            power.limit_at = self.now
        elif kind == "beats":
            power.last_beat = self.now - 2 * BEATS_MISSED_S
        else:
            next(held for held in power.forwarded if held.n == kind).sent_at = self.now - 1.0
        madre.move(lambda: power.tick(self.now))

    def _do_reconnect(self, name: str) -> None:
        part = self.part(name)
        part.connected = True
        if isinstance(part, Instance):
            part.reconnects += 1
        subscribed = []
        if isinstance(part, Madre) and part.sub == "sub":
            subscribed.append(("sub", "shared"))
        if isinstance(part, Instance):
            subscribed += [("sub", "private")] * part.private + [("sub", "shared")] * part.shared
        part.out = (*subscribed, *part.out)
        if part.token:
            part.say("echo", part.token)
        if isinstance(part, Madre):
            part.inn = (*part.inn, ("reconnected",))
