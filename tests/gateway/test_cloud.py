"""CloudEvents at the door: sent in by both modes of the HTTP binding, given out as a batch, shown in the list."""

from __future__ import annotations

import base64
import json

import pytest
from cloudevents.core.bindings import http as official
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OfficialEvent
from hypothesis import given
from hypothesis import strategies as st

from bus import cloudevents
from bus.cloudevents import BATCH, STRUCTURED
from bus.eventlog import Stored
from gateway.http import cloud
from gateway.http.lines import line_of
from tests.gateway.test_calls import bus  # noqa: F401 - its actors and their cards
from tests.gateway.test_doors import is_error
from tests.gateway.test_events import Reader

LIST = "/operator/api/events"
DOOR = "/events/greeter/greeted"
SUBJECT = "vx11.events.greeter.greeted"
EVENT = {"id": "A-1", "source": "https://shop.example/till/3", "type": "com.example.sold", "subject": "röd vin"}
DATA = {"name": "ana"}


def as_headers(attributes: dict[str, str]) -> dict[str, str]:
    return {f"ce-{name}": cloudevents.encoded(text) for name, text in {"specversion": "1.0", **attributes}.items()}


def as_document(attributes: dict[str, str], **more: object) -> bytes:
    return json.dumps({"specversion": "1.0", **attributes, "data": DATA, **more}).encode()


async def test_both_modes_are_stored_as_headers_and_data(link):
    """What is on the bus is one form: the body is the data, for whoever does not know CloudEvents."""
    await link.post(DOOR, DATA, headers=as_headers(EVENT))
    reply = await link.post(DOOR, as_document(EVENT), headers={"Content-Type": f"{STRUCTURED}; charset=utf-8"})
    assert reply.status == 200, reply.text
    for subject, body, _, headers in link.bus.published:
        assert (subject, json.loads(body)) == (SUBJECT, DATA)
        found = cloudevents.read(headers, body).attributes
        assert {name: found[name] for name in EVENT} == EVENT


async def test_the_official_package_can_send_to_the_door(link):
    event = OfficialEvent(attributes=dict(EVENT), data=DATA)
    for made in (official.to_binary(event, JSONFormat()), official.to_structured(event, JSONFormat())):
        body = made.body.encode() if isinstance(made.body, str) else made.body
        headers = {"Content-Type": "application/json"} | {name.title(): text for name, text in made.headers.items()}
        assert (await link.post(DOOR, body, headers=headers)).status == 200
    for _, body, _, headers in link.bus.published:
        found = cloudevents.read(headers, body)
        assert {name: found.attributes[name] for name in EVENT} == EVENT
        assert json.loads(found.data) == DATA


async def test_the_same_event_has_one_id_and_another_source_another(link):
    """The stream keeps each id once: two sources may count alike and nothing of theirs must be lost."""
    for attributes in (EVENT, EVENT, {**EVENT, "source": "/other"}, {**EVENT, "id": "A-2"}, {**EVENT, "id": "x" * 500}):
        assert (await link.post(DOOR, DATA, headers=as_headers(attributes))).status == 200
    await link.post("/events/greeter/said", DATA, headers=as_headers(EVENT))
    await link.post(DOOR, DATA, headers=as_headers(EVENT) | {"Idempotency-Key": "mine"})
    ids = [message_id for _, _, message_id, _ in link.bus.published]
    assert ids[0] == ids[1]
    assert len(set(ids[1:])) == len(ids) - 1
    assert ids[-1] == "mine"
    assert all(len(one) <= 200 for one in ids)


async def test_the_conversation_of_an_event_is_taken_over(link):
    reply = await link.post(DOOR, DATA, headers=as_headers({**EVENT, "vxcorrelationid": "conversation-9"}))
    assert reply.json["correlation_id"] == "conversation-9"


@pytest.mark.parametrize(
    ("headers", "body", "field"),
    [
        (as_headers({"id": "1", "source": "/s"}), DATA, "type"),
        (as_headers({**EVENT, "time": "soon"}), DATA, "time"),
        (as_headers(EVENT) | {"ce-specversion": "0.3"}, DATA, "specversion"),
        (as_headers(EVENT) | {"ce-datacontenttype": "application/json"}, DATA, "datacontenttype"),
        (as_headers({**EVENT, "subject": "a"}) | {"ce-subject": "%C0%A0"}, DATA, "subject"),
        ({"Content-Type": STRUCTURED}, b"{}", "specversion"),
        ({"Content-Type": STRUCTURED}, b"{", "data"),
        ({"Content-Type": STRUCTURED}, as_document(EVENT, datacontenttype="text/plain"), "datacontenttype"),
        ({"Content-Type": STRUCTURED}, as_document(EVENT, data=[1]), "body"),
        ({"Content-Type": STRUCTURED}, as_document(EVENT, data_base64="e30="), "data"),
        ({"Content-Type": BATCH}, b"[]", "data"),
    ],
)
async def test_a_malformed_one_is_400_with_its_attribute_and_nothing_is_stored(link, headers, body, field):
    reply = await link.post(DOOR, body, headers=headers)
    assert is_error(reply, "invalid"), reply.text
    assert reply.json["field"] == field
    assert not link.bus.published


async def test_attributes_have_a_bound(link):
    """As headers they travel beside the body, and a message has room for so many."""
    reply = await link.post(DOOR, as_document({**EVENT, "more": "x" * 9_000}), headers={"Content-Type": STRUCTURED})
    assert is_error(reply, "too_large")


async def test_the_data_must_fit_the_card_of_who_hears_it(link):
    reply = await link.post(DOOR, as_document(EVENT, data={"name": 5}), headers={"Content-Type": STRUCTURED})
    assert is_error(reply, "invalid")
    assert reply.json["field"] == "name"


def stored(link) -> None:
    link.log.add(SUBJECT, DATA, at=1.0, headers=as_headers(EVENT), correlation_id="conversation-1")
    link.log.add(SUBJECT, as_document(EVENT, yes=True), at=2.0, headers={"content-type": STRUCTURED})
    link.log.add("vx11.events.power.slept.switch", {"actor": "switch"}, at=3.0)
    link.log.add(SUBJECT, b"\xff", at=4.0, headers={"ce-id": "alone"})
    link.log.add(SUBJECT, b"{", at=5.0, headers={"Content-Type": STRUCTURED})


async def test_the_list_says_what_each_event_is_called(link):
    stored(link)
    lines = (await link.get(LIST + "?after=0")).json["events"]
    named = {"id": "A-1", "source": EVENT["source"], "type": "com.example.sold", "malformed": ""}
    assert [line["cloudevent"] for line in lines[:2]] == [named, named]
    assert [line["payload"] for line in lines[:2]] == [DATA, DATA]
    plain = {"id": "VX11_EVENTS:3", "source": "/vx11/switch", "type": "dev.vx11.power.slept", "malformed": ""}
    assert (lines[2]["cloudevent"], lines[2]["type"]) == (plain, "power.slept")
    for line, reason in ((lines[3], "specversion: it must be 1.0"), (lines[4], "data: the body is no JSON")):
        assert line["cloudevent"]["malformed"].startswith(reason)
        assert line["summary"].startswith(f"malformed CloudEvent: {reason}")


@pytest.mark.parametrize("accept", [STRUCTURED, BATCH])
async def test_the_list_is_a_batch_of_cloudevents_for_who_accepts_them(link, accept):
    stored(link)
    reply = await link.get(LIST + "?after=0", headers={"Accept": accept})
    assert reply.headers["Content-Type"] == f"{BATCH}; charset=utf-8"
    assert (reply.headers["X-Vx11-Next-After"], reply.headers["X-Vx11-Has-More"]) == ("5", "false")
    first, second, third, fourth, fifth = reply.json
    assert {name: first[name] for name in EVENT} == EVENT
    assert (first["data"], first["vxcorrelationid"], first["vxsequence"]) == (DATA, "conversation-1", "1")
    assert (second["data"], second["yes"]) == (DATA, "true")
    assert (third["source"], third["type"], third["time"]) == ("/vx11/switch", "dev.vx11.power.slept", "1970-01-01T00:00:03.000Z")
    assert third["vxsubject"] == "vx11.events.power.slept.switch"
    assert base64.b64decode(fourth["data_base64"]) == b"\xff"
    assert fourth["vxmalformed"].startswith("specversion")
    assert fifth["vxmalformed"].startswith("data")
    for event in reply.json:  # whatever it was: what is given out is one that others can read
        assert cloudevents.read({"Content-Type": STRUCTURED}, json.dumps(event).encode())
        assert JSONFormat().read(OfficialEvent, json.dumps(event)).get_id() == event["id"]


async def test_a_batch_has_the_page_that_the_query_asks_for(link):
    stored(link)
    reply = await link.get(LIST + "?limit=1&module=switch", headers={"Accept": BATCH})
    assert [event["vxsequence"] for event in reply.json] == ["3"]


async def test_the_stream_shows_them_too(link):
    stored(link)
    async with link.stream("GET", LIST + "?after=0") as answer:
        reader = Reader(answer)
        told = [json.loads((await reader.next())["data"])["cloudevent"]["type"] for _ in range(3)]
    assert told == ["com.example.sold", "com.example.sold", "dev.vx11.power.slept"]


ATTRIBUTES = ("id", "specversion", "source", "type", "time", "datacontenttype", "more", "vxcorrelationid")
names = st.sampled_from([*(f"ce-{name}" for name in ATTRIBUTES), "Ce-Id", "Content-Type", "correlation_id", "traceparent"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
usual = st.sampled_from(["1.0", "/s", "application/json", "text/plain", STRUCTURED, BATCH, "%ff", "2026-01-01T00:00:00Z"])
bodies = st.binary(max_size=30) | st.sampled_from([as_document(EVENT), b"{}", b"", b'"\\ud800"', b"[1]"])
subjects = st.just(SUBJECT) | st.builds("vx11.events.{}.{}".format, texts.filter(bool), texts.filter(bool))


@given(st.dictionaries(names, usual | texts, max_size=6), bodies, subjects)
def test_whatever_a_stock_client_has_stored_can_be_shown_and_given_out(headers, body, subject):
    """One strange message must not close the list for all others."""
    one = Stored(5, subject, 1.0, headers, body)
    assert line_of(one).model_dump_json()
    (event,) = json.loads(cloud.batch([one]))
    again = cloudevents.read({"Content-Type": STRUCTURED}, json.dumps(event).encode())
    assert again.attributes["vxsequence"] == "5"
