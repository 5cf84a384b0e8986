"""`python -m bus.golden`: recorded calls, asked again of the code of now, in a process that is thrown away afterwards.

The actor is awake on a bus of its own, which nobody else is on and which ends with this process: what it publishes, stores
and asks for stays here. What it asks of other actors is answered as it was then, if that was recorded. Other hosts,
processes and files are out of its reach, see `bus.fence`. Reads a `Job` on standard input, writes the outcome on standard
output; the environment is not read.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from bus import call
from bus import nats_server as nats
from bus import redis_server as redis
from bus.actor import Actor
from bus.bodies import recorded
from bus.client import Answer, Bus
from bus.compare import changes, fits, steady
from bus.examine import blame
from bus.fence import Fence
from bus.loading import load_actor, roots_of
from bus.process import die_with_parent
from bus.redaction import redact_last_resort
from bus.refusal import refusal
from bus.settings import Settings
from bus.stage import connected, perform
from bus.wire import Msg
from schemas.errors import Failure
from schemas.message import RESERVED, Message, Request

Document = dict[str, Any]

CALL_S = 30.0
"""No call may take longer here, whatever its class allows."""
OWN = ("vx11.events.power.", "vx11.events.madre.")
"""Events of the stage itself."""
BROKEN = 2
"""Exit code: nothing could be compared."""


class Others:
    """Plays the actors that the one on stage asks, by what was recorded inside the call that is being replayed."""

    def __init__(self, name: str, bus: Bus) -> None:
        self._name = name
        self._bus = bus
        self._inside: list[Document] = []
        self.asked: list[Document] = []
        """Of the call: `subject`, and whether it was answered from the recording."""

    def begin(self, inside: list[Document]) -> None:
        """Another call: what was asked inside it, in the order in which it was."""
        self._inside, self.asked = list(inside), []

    def heard(self, msg: Msg) -> None:
        """A request to anybody but the actor itself."""
        _, actor, verb = msg.subject.split(".")
        if not msg.reply or actor == self._name or actor in RESERVED:
            return
        found = next((one for one in self._inside if one["subject"] == msg.subject and _same(one, msg)), None)
        if found:
            self._inside.remove(found)
        self.asked.append({"subject": msg.subject, "recorded": found is not None})
        headers, body = self._answer(found, msg.subject, actor, verb)
        self._bus.wire.send(msg.reply, body, headers=headers)

    def _answer(self, found: Document | None, subject: str, actor: str, verb: str) -> tuple[dict[str, str], bytes]:
        if found is None:
            told = f"the recording has no answer of {subject} to this: golden replay asks no living actor"
            return refusal(Failure("unavailable", told, actor=actor, verb=verb))
        if found["code"] != "ok":
            return refusal(Failure.from_document(found["reply"]))
        return {}, json.dumps(found["reply"]).encode()


def _same(one: Document, msg: Msg) -> bool:
    kind, asked = _kind_of(msg.subject), from_json(msg.data or b"{}")
    if kind is None:
        return fits(one["request"], asked)
    return fits(steady(kind, one["request"]), steady(kind, asked))


def _kind_of(subject: str) -> type[Request[Any]] | None:
    """The request class of a subject, as far as the actor has imported it."""
    return next((kind for kind in _below(Request) if kind.__dict__.get("subject") == subject), None)


def _below(kind: type[Any]) -> set[type[Any]]:
    return {found for one in kind.__subclasses__() for found in (one, *_below(one))}


class Golden:
    """Asks the actor on stage what was recorded, one call after the other."""

    def __init__(self, actor: Actor, bus: Bus, others: Others, fence: Fence, home: tuple[str, str]) -> None:
        """`home`: the data folder here, and that of the recording: an answer that names it is no other answer."""
        self._actor = actor
        self._home = home
        self._bus = bus
        self._others = others
        self._fence = fence
        self._events: list[Document] = []

    def heard(self, msg: Msg) -> None:
        """An event of the actor's."""
        if not msg.subject.startswith(OWN):
            self._events.append({"subject": msg.subject, "body": (msg.data or b"").decode(errors="replace")})

    async def ask(self, one: Document) -> Document:
        """One recorded call; what came of it now, and what differs."""
        self._others.begin(one["inside"])
        self._events, tried = [], len(self._fence.refused)
        now = await self._answered(one)
        await self._bus.wire.barrier()  # its events are here
        return {
            "code": now["code"],
            "changes": self._differences(one, now),
            "asked": self._others.asked,
            "events": self._events,
            "refused": self._fence.refused[tried:],
        }

    async def _answered(self, one: Document) -> Document:
        handler = self._actor.requests.get(one["verb"])
        timeout = min(handler.message.timeout, CALL_S) if handler else CALL_S
        headers = {call.CORRELATION: one["correlation_id"], call.CALLER: one["caller"]}
        try:
            answer: Answer = await self._bus.ask(
                f"vx11.{self._actor.name}.{one['verb']}", json.dumps(one["request"]).encode(), timeout=timeout, headers=headers
            )
        except Failure as failure:
            return {"code": failure.code, "reply": {"message": failure.message.replace(*self._home)}}
        here, there = (json.dumps(folder)[1:-1].encode() for folder in self._home)
        reply = recorded(handler.message.reply_type() if handler else None, answer.body.replace(here, there))
        return {"code": "ok", "reply": reply}

    def _differences(self, one: Document, now: Document) -> list[Document]:
        if one["code"] != now["code"]:
            return [{"field": "code", "was": one["code"], "is": now["code"]}, *changes(_said(one), _said(now))]
        if one["code"] != "ok":
            return changes(_said(one), _said(now))
        kind: type[Message] = self._actor.requests[one["verb"]].message.reply_type()
        return changes(steady(kind, one["reply"]), steady(kind, now["reply"]))


def _said(outcome: Document) -> Document:
    """The words of an error; what else it tells is mostly of its moment."""
    return {} if outcome["code"] == "ok" else {"message": outcome["reply"].get("message")}


@asynccontextmanager
async def staged(actor: Actor, server: nats.NatsServer, fence: Fence, settings: Settings, home: str) -> AsyncIterator[Golden]:
    """The actor awake among players."""
    async with connected(server, "madre") as ear:
        others = Others(actor.name, ear)
        await ear.listen("vx11.*.*", others.heard)
        async with perform(server, actor, settings=settings) as bus:
            made = Golden(actor, bus, others, fence, (str(settings.home), home))
            await bus.listen("vx11.events.>", made.heard)
            yield made


async def _replay(actor: Actor, job: Document, server: nats.NatsServer, fence: Fence, settings: Settings) -> list[Document]:
    async with staged(actor, server, fence, settings, job["home"]) as golden:
        return [await golden.ask(one) for one in job["calls"]]


def run(job: Document) -> Document:
    """`results`, one for each call; or `error`, when the actor cannot be had on stage."""
    folder, real = Path(job["folder"]), Settings(Path(job["home"]), job["variables"])
    tempfile.tempdir = job["folder"]
    sys.dont_write_bytecode = True
    roots = roots_of(real)
    try:
        actor = load_actor(job["actor"], roots)
    except BaseException as error:  # noqa: BLE001 - the author's code may raise anything; it is shown to its author
        return {"error": blame(error, roots)}
    with nats.embedded(folder) as server, redis.embedded(folder) as cache:
        fence = Fence(folder, {server.port, cache.port})
        settings = Settings(folder, {**job["variables"], "VX11_REDIS_URL": cache.url})
        fence.up = True
        try:
            return {"results": asyncio.run(_replay(actor, job, server, fence, settings))}
        except Exception as error:  # noqa: BLE001 - a resource that does not open, an actor that needs what only its own process has
            return {"error": blame(error, roots), "refused": fence.refused}
        finally:
            fence.up = False


def main() -> int:
    """What the actor prints goes to standard error."""
    redact_last_resort()
    out = os.dup(1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    die_with_parent(job["parent"])
    outcome = run(job)
    with os.fdopen(out, "w") as told:
        json.dump(outcome, told)
    return BROKEN if "error" in outcome else 0


if __name__ == "__main__":
    sys.exit(main())
