"""CloudEvents and descriptions in a whole system, with a stock client: what is published is handled, shown, or buried."""

from __future__ import annotations

import json
import uuid

import pytest

from bus import cloudevents
from bus.cloudevents import BATCH, STRUCTURED, CloudEvent
from bus.eventlog import EventLog
from gateway.moment import epoch
from tests.e2e.house import KNOWN, House, until
from tests.standards.test_metrics import Page

JOTTED = "vx11.events.notebook.jotted"
DEAD = "vx11.dlq.events.notebook.jotted"


def event(text: str, **more: str) -> CloudEvent:
    attributes = {"id": uuid.uuid4().hex, "source": "https://pen.example/7", "type": "com.example.jotted", **more}
    return CloudEvent({"datacontenttype": "application/json", **attributes}, json.dumps({"text": text}).encode())


def in_binary(one: CloudEvent) -> tuple[dict[str, str], bytes]:
    return cloudevents.binary(one), one.data


def structured(one: CloudEvent) -> tuple[dict[str, str], bytes]:
    return {"Content-Type": f"{STRUCTURED}; charset=UTF-8"}, json.dumps(cloudevents.structured(one)).encode()


async def publish(home: House, headers: dict[str, str], body: bytes) -> int:
    """As a stock client does it."""
    async with home.stock() as client:
        return (await client.jetstream().publish(JOTTED, body, headers=headers)).seq


def kept(home: House) -> dict[str, dict[str, object]]:
    """What notebook has on disk, by its text."""
    file = home.home / "notebook.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {line["text"]: line for line in lines}


async def letters(home: House) -> list[tuple[dict[str, str], bytes]]:
    async with home.bus("keeper") as bus:
        found = await EventLog(bus, "VX11_DLQ", "vx11.dlq.>").read(0, 1_000)
    return [(dict(one.headers), one.body) for one in found if one.subject == DEAD]


@pytest.mark.parametrize("form", [in_binary, structured])
async def test_a_cloudevent_wakes_a_durable_handler_and_keeps_its_conversation(home: House, form) -> None:
    await home.sleep("notebook")
    text = uuid.uuid4().hex
    await publish(home, *form(event(text, vxcorrelationid=f"conversation-{text[:8]}")))
    await until(lambda: text in kept(home), "notebook has written it down")
    assert kept(home)[text]["correlation_id"] == f"conversation-{text[:8]}"


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"ce-id": "1", "ce-source": "/s"}, b'{"text": "x"}', "specversion: malformed CloudEvent: it must be 1.0"),
        ({"Content-Type": STRUCTURED}, b'{"specversion": "1.0"}', "id: malformed CloudEvent: it is required"),
        ({"Content-Type": STRUCTURED}, b"\xff", "data: malformed CloudEvent: the body is no JSON"),
        (cloudevents.binary(event("x", time="noon")), b'{"text": "x"}', "time: malformed CloudEvent"),
        (cloudevents.binary(event("x")), b'{"words": "x"}', "text: Field required"),
    ],
)
async def test_a_malformed_one_becomes_a_dead_letter_with_the_reason_at_once(home: House, headers, body, reason) -> None:
    mark = uuid.uuid4().hex
    await publish(home, {**headers, "mark": mark}, body)

    async def buried() -> list[tuple[dict[str, str], bytes]]:
        return [letter for letter in await letters(home) if letter[0].get("mark") == mark]

    await until(buried, "it is in the DLQ")
    ((told, kept_body),) = await buried()
    assert (told["vx11-dlq-reason"], told["vx11-dlq-tries"], kept_body) == ("invalid", "1", body)
    assert told["vx11-dlq-detail"].startswith(reason)


async def test_the_door_takes_one_and_the_handler_has_it(home: House) -> None:
    text = uuid.uuid4().hex
    headers, body = structured(event(text))
    reply = await home.post("/events/notebook/jotted", body, headers=headers)
    assert reply.status == 200, reply.text
    again = await home.post("/events/notebook/jotted", body, headers=headers)
    assert again.json["sequence"] == reply.json["sequence"]
    await until(lambda: text in kept(home), "notebook has written it down")


async def test_every_event_of_vx11_carries_the_attributes(home: House) -> None:
    """Whatever tells it: madre, a host, an instance, the door."""
    await home.sleep("notebook")
    after, text = await home.last_event(), uuid.uuid4().hex
    await home.post("/events/notebook/jotted", {"text": text})
    await until(lambda: text in kept(home), "notebook has written it down")
    await home.sleep("notebook")

    async def exited() -> bool:
        """Its host says so last."""
        return any(one.subject.split(".")[3] == "exited" for one in await home.events(after))

    await until(exited, "its process has ended")
    told = await home.events(after)
    facts = {one.subject.split(".")[3] for one in told}
    assert {"activate", "waking", "active", "slept", "exited", "jotted"} <= facts, facts
    for one in told:
        found = cloudevents.read(one.headers, one.body)
        assert found, one
        source, kind = cloudevents.origin(one.subject)
        assert (found.attributes["source"], found.attributes["type"]) == (source, kind)
        assert abs(one.at - epoch(found.attributes["time"])) < 60
    assert len({one.headers["ce-id"] for one in told}) == len(told)


async def test_a_stock_reader_gets_them_as_a_batch(home: House) -> None:
    text = uuid.uuid4().hex
    number = await publish(home, *in_binary(event(text, subject="röd")))
    reply = await home.get(f"/operator/api/events?after={number - 1}&limit=1", headers={"Accept": BATCH})
    (found,) = reply.json
    assert (found["data"], found["subject"], found["vxsequence"]) == ({"text": text}, "röd", str(number))
    line = (await home.get(f"/operator/api/events?after={number - 1}&limit=1")).json["events"][0]
    assert (line["cloudevent"]["source"], line["payload"]) == ("https://pen.example/7", {"text": text})


async def test_the_description_has_the_sleepers_and_wakes_none(home: House) -> None:
    await home.sleep()
    wakes = {name: (await home.status(name))["wakes"] for name in KNOWN}
    told = (await home.get("/asyncapi.json")).json
    assert set(told["info"]["x-vx11-actors"]) >= {*KNOWN, "madre"}
    assert "x-vx11-missing" not in told["info"]
    assert told["operations"]["notebook.write"]["reply"]["messages"]
    assert told["operations"]["notebook.hears.notebook.jotted"]["x-vx11-durable"] == "notebook__keep"
    assert told["servers"]["bus"]["host"] == home.system.url.rpartition("/")[2]
    assert "vx11.notebook.write" in (await home.get("/asyncapi", control=True, token=None)).text
    assert set((await home.states()).values()) == {"dormant"}
    assert {name: (await home.status(name))["wakes"] for name in KNOWN} == wakes


async def test_an_example_of_the_description_can_be_sent_as_it_is(home: House) -> None:
    """By a stock client, to who sleeps."""
    told = (await home.get("/asyncapi.json")).json
    message = told["components"]["messages"]["notebook.list_lines.request"]
    async with home.stock() as client:
        body = json.dumps(message["examples"][0]["payload"]).encode()
        answer = await client.request("vx11.notebook.list_lines", body, timeout=10)
    assert "Nats-Service-Error" not in (answer.headers or {})


async def test_the_metrics_of_a_running_system_are_strict_too(home: House) -> None:
    page = Page((await home.get("/metrics")).text)
    assert page.lint() == []
    page.histograms()
    assert ("vx11_actor_up", (("actor", "notebook"),)) in page.samples
