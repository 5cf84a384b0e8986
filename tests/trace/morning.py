"""A scripted morning: chats, wakes, failures, events of a stock client, a poison message. Says under which ids it happened."""

from __future__ import annotations

import json

from bus import call
from tests.e2e.house import House

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Of a client that traces by itself, and wants this one to be seen."""
JOTTED = "vx11.events.notebook.jotted"
WRITTEN = {"text": "kept"}


async def morning(home: House) -> list[str]:
    """The correlation ids of all that a client began."""
    return [*await _chats(home), *await _calls(home), *await _stock(home)]


async def _chats(home: House) -> list[str]:
    """The first wakes operator_backend and switch; without a model switch fails and madre answers."""
    for number in range(3):
        answer = await home.chat("tell me something about the moon", headers={"X-Correlation-Id": f"morning-chat-{number}"})
        assert answer.status == 200, answer.text
    await home.chat("hello", headers={"X-Correlation-Id": "morning-traced", "traceparent": REMOTE})
    return [*(f"morning-chat-{number}" for number in range(3)), "morning-traced"]


async def _calls(home: House) -> list[str]:
    """A wake, a body that does not fit, an actor that may not wake, an event through the door."""

    def told(name: str) -> dict[str, str]:
        return {"X-Correlation-Id": f"morning-{name}"}

    assert (await home.post("/call/notebook/write", WRITTEN, headers=told("write"))).status == 200
    assert (await home.post("/call/notebook/write", {"no": 1}, headers=told("invalid"))).status == 400
    await home.order("set_gate", name="notebook", gate="closed")
    await home.sleep("notebook")
    await home.asleep("notebook")
    assert (await home.post("/call/notebook/write", WRITTEN, headers=told("denied"))).status == 403
    await home.order("set_gate", name="notebook", gate="on_demand")
    assert (await home.post("/events/notebook/jotted", {"text": "by the door"}, headers=told("event"))).status == 200
    return [f"morning-{name}" for name in ("write", "invalid", "denied", "event")]


async def _stock(home: House) -> list[str]:
    """nats-py as anybody installs it: a request and an event that know nothing of VX11, one that does, and a poison one."""
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.list_lines", b"{}", timeout=10)
        js = client.jetstream()
        plain = await js.publish(JOTTED, json.dumps({"text": "plain"}).encode())
        headers = {call.CORRELATION: "morning-stock-event", call.TRACEPARENT: REMOTE.replace("0af7", "0af8")}
        await js.publish(JOTTED, json.dumps({"text": "with headers"}).encode(), headers=headers)
        await js.publish(JOTTED, b"no document at all", headers={call.CORRELATION: "morning-poison"})
    assert answer.headers
    return [answer.headers[call.CORRELATION], f"event-{plain.seq:08d}", "morning-stock-event", "morning-poison"]
