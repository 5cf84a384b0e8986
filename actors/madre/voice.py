"""What madre says on the bus when a power machine wants it said."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actors.madre import effects as do
from actors.madre.asked import Asked, by_request
from actors.madre.driven import Driven
from actors.madre.effects import Effect, Held
from actors.madre.power import NOBODY_STARTED, SILENT
from bus import call, dead
from bus.client import Bus
from bus.cloudevents import stamped
from bus.moment import rfc3339_now
from bus.redaction import stored
from schemas.errors import CODES, Failure
from schemas.power import Activate, Adopting, Cause, Denied, Draining, Failed, PowerEvent, Recalled, Rested

log = logging.getLogger("vx11.madre.voice")


class Voice:
    """`acks`: the subject on which instances acknowledge forwards."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.acks = ""

    def order(self, driven: Driven, effect: do.Order) -> None:
        body = json.dumps({"id": effect.id, "epoch": effect.epoch, "stay": effect.stay}).encode()
        self.send(f"vx11.inst.{driven.name}.{effect.run}._{effect.verb}", body)

    def forward(self, driven: Driven, effect: do.Forward) -> bool:
        """False: it is too large with what madre adds, and was answered so."""
        held = effect.held
        headers = {
            **held.headers,
            call.FORWARD: f"{self.acks} {held.n}",
            call.HELD_MS: str(int((time.time() - held.arrived) * 1000)),
        }
        subject = f"vx11.inst.{driven.name}.{effect.run}.{held.verb}"
        if self.send(subject, held.body, reply=held.reply, headers=headers) != "too_large":
            return True
        self.answer(driven, do.Answer(held, "too_large", "there is no room left for the headers that a forward needs"))
        return False

    def answer(self, driven: Driven, effect: do.Answer) -> None:
        effect = _without_promise(driven, effect)
        details: dict[str, Any] = {"service": driven.name}
        if effect.retry_after:
            details["retry_after"] = max(1, round(effect.retry_after))
        if effect.code == "off_by_policy":
            details |= {
                "status": "OFF_BY_POLICY",
                "recommended_action": f"open a window for {driven.name}, or set its gate to on_demand",
            }
        failure = Failure(effect.code, effect.message, **details)
        held = effect.held
        driven.stand_in.refuse(held.verb, held.reply, held.headers, failure, arrived=held.arrived)

    def activate(self, driven: Driven, effect: do.Activate) -> None:
        asked = driven.woken_by(effect.id)
        event = Activate(
            actor=driven.name,
            id=effect.id,
            revision=effect.revision,
            epoch=effect.epoch,
            reason=effect.reason,
            record=driven.record.model_dump(mode="json"),
            at=rfc3339_now(),
            **asked.fields,
        )
        self._event(f"{Activate.subject}.{driven.name}", stored(event), effect.id, asked.headers)

    def ask_host(self, driven: Driven, effect: do.AskHost) -> None:
        asked = {
            "actor": driven.name,
            "run": effect.run,
            "id": effect.id,
            "pid": effect.pid or driven.record.pid,
            "born": effect.born or driven.record.born,
            "kill": effect.kill,
        }
        host = effect.host or driven.record.host or "all"
        self.send(f"vx11.host.{host}.ask", json.dumps(asked).encode())

    def tell(self, driven: Driven, effect: do.Tell) -> None:
        if effect.fact == "failed":
            asked = replace(driven.cause[1], cause="host" if effect.reason.startswith(NOBODY_STARTED) else "crash")
            self._tell(driven, Failed, effect.reason, asked, retry_after=effect.retry_after)
        elif effect.fact == "draining":
            self._tell(driven, Draining, effect.reason, driven.slept_by)
        else:
            denied = by_request(effect.held) if effect.held else Asked()
            self._tell(driven, Denied, effect.reason, replace(denied, cause="gate"))

    def change(self, driven: Driven, done: Sequence[Effect]) -> None:
        """Tell of a change of state that nothing else tells of; `done` is what the move wanted."""
        power, was = driven.power, driven.shown
        if power.state == "dormant" and was == "failed":
            self._tell(driven, Rested, power.reason, Asked("crash"))
        elif power.state == "handover" and was == "draining":
            caller = next((effect.held for effect in done if isinstance(effect, do.Forward)), None)
            self._tell(driven, Recalled, power.reason, by_request(caller) if caller else driven.wanted_by)
        elif power.state == "adopting" and power.phase != "burying":
            cause: Cause = "madre" if not was else "silence" if was == "waking" or power.reason == SILENT else "server"
            self._tell(driven, Adopting, "the bus was away" if cause == "server" else power.reason, Asked(cause))

    def _tell(self, driven: Driven, kind: type[PowerEvent], reason: str, asked: Asked, **more: Any) -> None:
        power = driven.power
        event = kind(
            actor=driven.name, id=power.id, run=power.run, reason=reason, at=rfc3339_now(), **asked.fields, **more
        )  # fmt: skip
        self._event(f"{kind.subject}.{driven.name}", stored(event), call.new_request_id(), asked.headers)

    def bury(self, driven: Driven, held: Held) -> None:
        verb = driven.card.whole().verb(held.verb) if driven.card else None
        schema = verb.request if verb else None
        told = f"{held.kills} instances died while they had this request"
        if letter := dead.request_letter(driven.name, held.verb, held.body, held.headers, told, schema):
            self.send(letter.subject, letter.body, headers=letter.headers)

    def _event(self, subject: str, body: bytes, message_id: str, cause: Mapping[str, str]) -> None:
        headers = {**call.conversation(cause), call.CALLER: "madre", "Nats-Msg-Id": message_id}
        self.send(subject, body, headers=stamped(subject, headers, message_id))

    def send(self, subject: str, body: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> str:
        """The code of what went wrong, empty when it is on its way. Orders and forwards are repeated."""
        try:
            self._bus.wire.send(subject, body, reply=reply, headers=headers)
        except Failure as failure:
            log.warning("%s: %s", subject, failure)
            return failure.code
        return ""


def _without_promise(driven: Driven, effect: do.Answer) -> do.Answer:
    """A code that says "surely not executed" is true of the copy in hand, and mostly nobody knows it of the ones before (9)."""
    held = effect.held
    if not (held.again or held.kills) or CODES[effect.code].executed or _unbegun(driven, held):
        return effect
    told = f"an earlier copy may have been begun, and this one was not: {effect.code}: {effect.message}"
    return replace(effect, code="timeout", message=told)


def _unbegun(driven: Driven, held: Held) -> bool:
    """Only madre was lost sight of, and it was sent when nobody had the actor any more: at most her predecessor held it."""
    sent = call.milliseconds(held.headers.get(call.SENT)) / 1000
    lost = held.kills or held.headers.get(call.AGAIN) != call.AGAIN_HELD
    return not lost and not driven.record.owner and driven.record.vacated < sent <= time.time()
