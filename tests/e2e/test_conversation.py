"""One id leads through a whole conversation: from the client's header over every hop to the log, and back again."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from bus.eventlog import EventLog
from tests.e2e.house import House, until
from tests.switch.scripted import refuses, says

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def headers(correlation_id: str) -> dict[str, str]:
    return {"X-Correlation-Id": correlation_id, "traceparent": TRACEPARENT, "tracestate": "studio=1"}


async def records(home: House, correlation_id: str, *subjects: str) -> dict[str, dict[str, Any]]:
    """The call records of a conversation by subject, once those of `subjects` are there: they are sent after the answers."""
    found: dict[str, dict[str, Any]] = {}

    async def all_there() -> bool:
        async with home.bus() as bus:
            stored = await EventLog(bus, "VX11_CALLS", "vx11.calls.>").read(0, 10_000)
        notes = [json.loads(one.body) for one in stored]
        found.update({note["subject"]: note for note in notes if note["correlation_id"] == correlation_id})
        return set(subjects) <= set(found)

    await until(all_there, f"the records of {', '.join(subjects)}")
    return found


async def test_every_call_of_a_conversation_has_its_id(home: House) -> None:
    """Gateway, operator_backend, switch, madre: each hop has its record."""
    answer = await home.chat("please tell me something about the moon", headers=headers("a-whole-talk"))
    assert answer.headers["X-Correlation-Id"] == answer.json["correlation_id"] == "a-whole-talk"
    found = await records(home, "a-whole-talk", "vx11.operator_backend.chat", "vx11.switch.chat", "vx11.madre.chat")
    assert {note["code"] for note in found.values()} == {"ok", "unavailable"}, "without a model switch cannot answer"
    assert found["vx11.switch.chat"]["code"] == "unavailable"


async def test_the_trace_goes_through_all_hops(home: House) -> None:
    """The same trace everywhere, another span at each hop, and the client's flag that it wants to see it."""
    answer = await home.chat("hello", headers=headers("a-trace-of-it"))
    hops = ("vx11.tentaculo_link.chat", "vx11.operator_backend.chat", "vx11.switch.chat", "vx11.madre.chat")
    found = await records(home, "a-trace-of-it", *hops)
    traces = [found[hop]["traceparent"] for hop in hops]
    assert traces[0] == answer.headers["traceparent"]
    assert {trace.split("-")[1] for trace in traces} == {TRACE}
    assert {trace.split("-")[3] for trace in traces} == {"01"}
    spans = [trace.split("-")[2] for trace in traces]
    assert len({PARENT, *spans}) == len(spans) + 1
    assert [found[hop]["parent"] for hop in hops] == [PARENT, spans[0], spans[1], spans[1]], "each below the one that asked"


async def test_a_record_says_who_asked_whom(home: House) -> None:
    await home.chat("hello", headers=headers("who-asked-whom"))
    found = await records(home, "who-asked-whom", "vx11.operator_backend.chat", "vx11.switch.chat")
    assert found["vx11.operator_backend.chat"]["caller"] in (home.home / "tokens.json").read_text()
    assert found["vx11.switch.chat"]["caller"] == "operator_backend"
    assert len({note["request_id"] for note in found.values()}) == len(found)
    assert all(note["took_ms"] >= 0 for note in found.values())


async def test_a_record_holds_no_words(home: House) -> None:
    """Personal data is kept where it can be deleted."""
    await home.chat("my password is swordfish", headers=headers("nothing-said-here"))
    found = await records(home, "nothing-said-here", "vx11.operator_backend.chat", "vx11.switch.chat", "vx11.madre.chat")
    assert "swordfish" not in json.dumps(found)
    assert "swordfish" not in "".join(one.body.decode(errors="replace") for one in await home.events(0))


async def test_an_event_of_a_conversation_has_its_id(home: House) -> None:
    """A model that failed is told of in an event: it leads to the conversation that it failed in."""
    async with home.model(refuses(500, "out of order")):
        await home.chat("hello", headers=headers("it-failed-in-here"))
    page = {}

    async def told() -> bool:
        page.update((await home.get("/operator/api/events?correlation_id=it-failed-in-here")).json)
        return "switch.model_failed" in [event["type"] for event in page["events"]]

    await until(told, "the event is in the log")
    assert {event["correlation_id"] for event in page["events"]} == {"it-failed-in-here"}


async def test_a_held_request_keeps_its_id_and_trace(home: House) -> None:
    """Through the stand-in, too."""
    await home.sleep("notebook")
    answer = await home.post("/call/notebook/list_lines", headers=headers("held-for-a-while"))
    assert answer.headers["X-Correlation-Id"] == "held-for-a-while"
    found = await records(home, "held-for-a-while", "vx11.notebook.list_lines")
    note = found["vx11.notebook.list_lines"]
    assert note["held_ms"] > 0
    assert note["traceparent"].split("-")[1] == TRACE


async def test_what_policy_refuses_is_recorded_too(home: House) -> None:
    await home.sleep("notebook")
    await home.order("set_gate", name="notebook", gate="closed")
    try:
        answer = await home.post("/call/notebook/list_lines", headers=headers("refused-it-was"))
    finally:
        await home.order("set_gate", name="notebook", gate="on_demand")
    assert answer.json["correlation_id"] == "refused-it-was"
    found = await records(home, "refused-it-was", "vx11.notebook.list_lines")
    assert found["vx11.notebook.list_lines"]["code"] == "off_by_policy"


async def test_the_id_in_the_body_is_honoured(home: House) -> None:
    """The original threw it away."""
    answer = await home.chat("hello", body={"correlation_id": "said-in-the-body"})
    assert answer.json["correlation_id"] == answer.headers["X-Correlation-Id"] == "said-in-the-body"
    await records(home, "said-in-the-body", "vx11.operator_backend.chat")


async def test_the_header_goes_before_the_body(home: House) -> None:
    answer = await home.chat("hello", body={"correlation_id": "said-in-the-body"}, headers=headers("said-in-the-head"))
    assert answer.json["correlation_id"] == "said-in-the-head"


@pytest.mark.parametrize("told", ["", "short", "x" * 65, "with space", "<script>", "a/b/c/d/e/f", "ñandúñandú"])
async def test_an_id_that_is_none_is_replaced(home: House, told: str) -> None:
    """It goes into logs, pages and headers."""
    answer = await home.get("/health", headers={"X-Correlation-Id": told.encode().decode("latin-1")})
    assert UUID.fullmatch(answer.headers["X-Correlation-Id"])


async def test_a_streamed_answer_has_the_id_too(home: House) -> None:
    async with home.model(says("Yes.")):
        options = {"json": {"message": "hello", "stream": True}, "headers": headers("word-for-word")}
        async with home.follow("POST", "/operator/api/chat", **options) as events:
            last = [event async for event in events][-1]
    assert (last.name, last.data["correlation_id"]) == ("reply", "word-for-word")
    found = await records(home, "word-for-word", "vx11.operator_backend.chat", "vx11.switch.chat")
    assert {note["code"] for note in found.values()} == {"ok"}


async def test_the_bus_carries_it_for_those_who_do_not_come_through_the_door(home: House) -> None:
    async with home.stock() as client:
        answer = await client.request(
            "vx11.operator_backend.chat",
            b'{"message": "hello"}',
            timeout=5.0,
            headers={"correlation_id": "from-a-stock-client", "traceparent": TRACEPARENT},
        )
    assert answer.headers["correlation_id"] == "from-a-stock-client"
    found = await records(home, "from-a-stock-client", "vx11.operator_backend.chat", "vx11.switch.chat")
    assert {note["traceparent"].split("-")[1] for note in found.values()} == {TRACE}


async def test_an_error_has_the_id_in_its_body(home: House) -> None:
    for path, body in (("/no/such/path", None), ("/operator/api/chat", {"message": ""}), ("/call/nobody/greet", {})):
        answer = await home.post(path, body, headers=headers("in-every-error"))
        assert answer.status >= 400
        assert answer.json["correlation_id"] == "in-every-error"
