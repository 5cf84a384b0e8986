"""The AsyncAPI description: right by its own rules, by FastStream's, and by what the cards say; and its page."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from gateway.http.asyncapi import document
from gateway.http.asyncapi_page import STYLE, page
from gateway.known import known_events
from schemas.errors import Failure
from schemas.madre import ActorDetail
from tests.gateway.scripted import CARD, LIST, actor, listed
from tests.gateway.test_doors import is_error
from tests.standards.cards import BROKEN, HOSTILE, KEEN, Flew, Sung, own_cards

KEY = re.compile(r"[A-Za-z0-9._-]+")
HOST = "127.0.0.1:4222"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    told = {**known_events(), Sung.subject: Sung, Flew.subject: Flew}
    made = document([*own_cards(), KEEN, BROKEN], told, host=HOST, missing=["gone"])
    return json.loads(json.dumps(made))


def at(described: dict[str, Any], ref: str) -> Any:
    found = described
    for token in ref.removeprefix("#/").split("/"):
        found = found[token]
    return found


def refs(value: Any) -> set[str]:
    """Every reference anywhere in it, examples and defaults left out: they are data."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(refs(inner) for name, inner in value.items() if name not in ("examples", "default")))
    return set().union(*(refs(inner) for inner in value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere_and_none_to_a_place_of_pydantics(described):
    found = refs(described)
    assert len(found) > 100
    for ref in found:
        at(described, ref)
    assert "$defs" not in json.dumps(described)


def test_every_key_is_one_that_asyncapi_allows(described):
    parts = described["components"].values()
    for keys in (described["servers"], described["channels"], described["operations"], *parts):
        assert all(KEY.fullmatch(key) for key in keys)


def test_every_operation_speaks_of_messages_of_its_own_channel(described):
    for key, operation in described["operations"].items():
        assert operation["action"] in ("send", "receive")
        replies = [operation["reply"]] if "reply" in operation else []
        for one in (operation, *replies):
            channel = one["channel"]["$ref"]
            assert one["messages"], key
            assert all(message["$ref"].startswith(f"{channel}/messages/") for message in one["messages"]), key


def test_every_place_in_an_address_is_a_parameter(described):
    for channel in described["channels"].values():
        named = set(re.findall(r"{(\w+)}", channel["address"] or ""))
        assert named == set(channel.get("parameters", {}))


def whole(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with all components beside it, for a validator that knows no AsyncAPI."""
    return {**schema, "components": described["components"]}


def test_every_example_is_valid_by_its_schema_and_nearly_every_message_has_one(described):
    without = set()
    for key, message in described["components"]["messages"].items():
        check = jsonschema_rs.validator_for(whole(described, message["payload"]))
        for example in message.get("examples", ()):
            check.validate(example["payload"])
        if not message.get("examples"):
            without.add(key)
    assert without == {"madre.open_window.request"}, "of which one field depends on another"


def test_the_classes_of_faststream_read_it(described):
    """They are another reading of AsyncAPI 3.0; `pathname` is asked for by them alone."""
    copy = json.loads(json.dumps(described))
    copy["servers"]["bus"]["pathname"] = ""
    assert len(ApplicationSchema.model_validate(copy).operations) == len(described["operations"])


def resolved(schemas: dict[str, Any], value: Any) -> Any:
    """A schema with its references replaced: two generators name their definitions differently. Knows no recursion."""
    if isinstance(value, dict) and "$ref" in value:
        return resolved(schemas, schemas[value["$ref"].rpartition("/")[2]])
    if isinstance(value, dict):
        return {name: resolved(schemas, inner) for name, inner in value.items() if name != "title"}
    return [resolved(schemas, inner) for inner in value] if isinstance(value, list) else value


def test_an_event_has_the_payload_that_faststream_would_describe(described):
    broker = NatsBroker()

    @broker.subscriber(Sung.subject)
    async def remember(event: Sung) -> None: ...

    theirs = json.loads(AsyncAPI(broker).to_specification().to_json())["components"]["schemas"]
    ours = described["components"]["schemas"]
    assert resolved(ours, ours["keen.hears.bird.sung"]) == resolved(theirs, theirs["Sung"])


def test_a_verb_is_described_with_its_answer_and_all_that_its_card_says(described):
    tell = described["operations"]["keen.tell"]
    assert tell["action"] == "receive"
    assert at(described, tell["channel"]["$ref"])["address"] == "vx11.keen.tell"
    assert tell["bindings"]["nats"]["queue"] == "keen"
    assert tell["summary"] == "Tell of an animal."
    told = {name.removeprefix("x-vx11-"): value for name, value in tell.items() if name.startswith("x-")}
    assert told == {
        "timeout": 12.5, "idempotent": False, "scope": "chat", "passive": False, "chunks": True, "http": "POST /call/keen/tell",
    }  # fmt: skip
    assert at(described, tell["reply"]["channel"]["$ref"])["address"] is None
    answers = [at(described, one["$ref"])["$ref"].rpartition("/")[2] for one in tell["reply"]["messages"]]
    assert answers == ["keen.tell.reply", "keen.tell.chunk", "error"]
    forget = described["operations"]["keen.forget"]
    assert (forget["x-vx11-idempotent"], forget["x-vx11-passive"], forget["x-vx11-chunks"]) == (True, True, False)


def test_a_message_has_the_common_headers_and_its_correlation(described):
    for message in described["components"]["messages"].values():
        (trait,) = (at(described, one["$ref"]) for one in message["traits"])
        assert "correlation_id" in trait["headers"]["properties"]
        assert message["correlationId"]["location"] == "$message.header#/correlation_id"


def test_what_is_heard_says_from_which_stream_and_by_which_consumer(described):
    durable, fleeting = (described["operations"][f"keen.hears.bird.{fact}"] for fact in ("sung", "flew"))
    assert (durable["x-vx11-stream"], durable["x-vx11-durable"]) == ("VX11_EVENTS", "keen__remember")
    assert fleeting["x-vx11-durable"] == ""


def test_what_is_told_is_sent_from_the_actors_view(described):
    started = described["operations"]["madre.tells.started"]
    assert started["action"] == "send"
    active = described["operations"]["power.tells.active"]
    assert at(described, active["channel"]["$ref"])["address"] == "vx11.events.power.active.{actor}"
    tried = described["operations"]["dlq.tells.tried"]
    assert at(described, tried["channel"]["$ref"])["address"] == "vx11.events.dlq.tried.{consumer}.{message}"


def test_whatever_is_told_by_the_house_is_described(described):
    """Also by the parts of it that are no actors and have no card."""
    told = {operation["tags"][0]["name"] for operation in described["operations"].values() if operation["action"] == "send"}
    assert told == {subject.split(".")[2] for subject in (*known_events(), Sung.subject)}


def test_a_discriminator_is_in_the_words_of_asyncapi_and_a_field_of_that_name_is_left_alone(described):
    animal = described["components"]["schemas"]["keen.tell.request"]["properties"]["animal"]
    assert animal["discriminator"] == "kind"
    assert described["components"]["schemas"]["keen.tell.request"]["properties"]["default"]["type"] == "integer"


def test_an_actor_that_cannot_be_loaded_is_there_with_the_reason(described):
    assert described["info"]["x-vx11-actors"]["broken"]["error"] == BROKEN.error
    assert described["info"]["x-vx11-missing"] == ["gone"]


def test_it_is_right_by_the_official_schema(described):
    """Not on PyPI: the file 3.0.0.json of the npm package @asyncapi/specs."""
    if not (file := os.environ.get("VX11_ASYNCAPI_SCHEMA")):
        pytest.skip("VX11_ASYNCAPI_SCHEMA names no JSON schema of AsyncAPI 3.0.0")
    check = jsonschema_rs.validator_for(json.loads(Path(file).read_text()))
    check.validate(described)
    assert not check.is_valid({**described, "operations": {"x": {"action": "sometimes"}}})


# -- the page ----------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Every tag with its attributes, and whether each that was opened was closed in order."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_no_script_and_nothing_from_elsewhere(described):
    tags = Tags(page(described))
    assert not tags.open
    assert {tag for tag, _ in tags.found} & {"script", "img", "link", "iframe", "form", "object", "base"} == set()
    named = {name for _, attributes in tags.found for name in attributes}
    assert named == {"lang", "charset", "name", "content", "class", "href", "id"}
    targets = {attributes["href"] for _, attributes in tags.found if "href" in attributes}
    assert all(target.startswith("#") or target in ("asyncapi.json", "openapi.json") for target in targets)
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_the_page_says_what_others_wrote_as_text(described):
    text = page(described)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert HOSTILE not in text


def test_the_page_leads_to_every_actor_and_every_subject(described):
    text = page(described)
    for name in described["info"]["x-vx11-actors"]:
        assert f'href="#{name}"' in text
        assert f'id="{name}"' in text
    for channel in described["channels"].values():
        assert channel["address"] is None or f"<code>{channel['address']}</code>" in text
    assert "Nobody has said yet what gone can do." in text
    assert "Cannot be loaded: ImportError: &lt;no such thing&gt;" in text


def test_it_says_who_sleeps_after_what_and_who_never_does(described):
    actors = described["info"]["x-vx11-actors"]
    assert actors["keen"]["idle_after"] == 7.0
    assert "idle_after" not in actors["madre"]
    assert "sleeps after 7 s" in page(described)
    assert "is always awake" in page(described)


def test_the_page_fits_a_phone(described):
    tags = Tags(page(described))
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags.found
    assert "overflow-wrap: anywhere" in STYLE
    assert "max-width" in STYLE


# -- at the door -------------------------------------------------------------------------------------------------------


@pytest.fixture
def keen_is_there(bus):
    bus.answers[LIST] = listed(actor("keen", card_version="abc"), actor("gone"))
    cards = {card.name: card for card in (*own_cards(), KEEN)}

    def card(asked):
        name = asked.body["name"]
        return ActorDetail(status=actor(name), card=cards[name]) if name in cards else Failure("not_found", "no host has it")

    bus.answers[CARD] = card


async def test_a_look_asks_madre_and_wakes_nobody(link, keen_is_there):
    told = (await link.get("/asyncapi.json")).json
    assert set(told["info"]["x-vx11-actors"]) == {"madre", "keen"}
    assert told["info"]["x-vx11-missing"] == ["gone"]
    assert (await link.get("/asyncapi")).status == 200
    assert {asked.subject for asked in link.bus.asked} == {LIST, CARD}


async def test_the_page_comes_with_a_policy_that_lets_nothing_in(link, keen_is_there):
    reply = await link.get("/asyncapi")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


async def test_it_is_made_once_and_anew_when_a_card_has_changed(link, keen_is_there):
    """Making it takes milliseconds for each actor, in the process that answers everybody."""
    await link.get("/asyncapi.json")
    made = link.parts.described.document
    await link.get("/asyncapi")
    assert link.parts.described.document is made
    changed = KEEN.model_copy(update={"card_version": "def", "summary": "somebody else"})
    link.bus.answers[LIST] = listed(actor("keen", card_version="def"))
    cards = {"keen": changed, "madre": own_cards()[0]}
    link.bus.answers[CARD] = lambda asked: ActorDetail(status=actor("keen"), card=cards[asked.body["name"]])
    link.parts.observed.stale()
    assert (await link.get("/asyncapi.json")).json["info"]["x-vx11-actors"]["keen"]["summary"] == "somebody else"


@pytest.mark.parametrize("path", ["/asyncapi.json", "/asyncapi"])
async def test_it_needs_a_token_and_on_the_loopback_door_none(link, keen_is_there, path):
    assert is_error(await link.get(path, token=None), "auth_required")
    assert (await link.get(path, token=link.new_token("read"))).status == 200
    assert (await link.get(path, token=None, control=True)).status == 200


async def test_without_madre_what_was_known_is_described_and_before_that_nothing(link, keen_is_there):
    listing, link.bus.answers[LIST] = link.bus.answers[LIST], Failure("unavailable", "nobody")
    assert is_error(await link.get("/asyncapi.json"), "unavailable")
    link.bus.answers[LIST] = listing
    link.parts.observed.stale()
    assert (await link.get("/asyncapi.json")).status == 200
    link.bus.answers[LIST] = link.bus.answers[CARD] = Failure("unavailable", "nobody")
    link.parts.observed.stale()
    assert "keen" in (await link.get("/asyncapi.json")).json["info"]["x-vx11-actors"]
