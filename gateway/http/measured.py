"""The numbers of `/metrics` on the bus, for who exports them; a stranger's question about anything else is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import math

from bus import call
from bus.client import Bus
from bus.refusal import refusal
from bus.users import answerable
from bus.wire import Msg
from gateway.http.numbers import numbers
from gateway.http.parts import Parts
from schemas.errors import Failure

log = logging.getLogger("vx11.gateway")

VERB = "get_numbers"


class Numbers:
    """Answers `vx11.tentaculo_link.get_numbers` with the families of the text, as one JSON document."""

    def __init__(self, bus: Bus, parts: Parts) -> None:
        self._bus, self._parts = bus, parts
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        await self._bus.listen("vx11.tentaculo_link.>", self._heard, queue="tentaculo_link")

    def _heard(self, msg: Msg) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(msg))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg) -> None:
        reply, headers = answerable(msg.reply), {call.CORRELATION: call.call_from(msg.headers).correlation_id}
        if not reply:
            return
        verb = msg.subject.rsplit(".", 1)[1]
        if verb == VERB:
            body = json.dumps(await self._document()).encode()
        else:
            failure = Failure("endpoint_not_found", f"tentaculo_link has no verb {verb!r}", verbs=[VERB])
            told, body = refusal(failure, headers[call.CORRELATION])
            headers.update(told)
        try:
            self._bus.wire.send(reply, body, headers=headers)
        except Failure as failure:
            log.info("the numbers are not sent: %s", failure)

    async def _document(self) -> list[object]:
        _, found = await numbers(self._parts)
        return [
            {
                "name": family.name,
                "kind": family.kind,
                "help": family.help,
                "samples": [
                    [sample.name, None if math.isnan(sample.value) else sample.value, dict(sample.labels)]
                    for sample in family.samples
                ],
            }
            for family in found
        ]
