"""Any verb and any event through the door, checked by the card before anybody wakes."""

from __future__ import annotations

import pytest

from schemas import madre, operator_backend, switch
from schemas.errors import Failure
from schemas.message import Message, Request
from tests.gateway.scripted import CARD, LIST, actor, card_of, cards, listed
from tests.gateway.test_chat import frames
from tests.gateway.test_doors import is_error


class Greeting(Message):
    text: str


class Greet(Request[Greeting]):
    subject = "vx11.greeter.greet"
    timeout = 7.0
    idempotent = True

    name: str
    times: int = 1


GREET = Greet.subject
FAILED = switch.ModelFailed.subject
HEARD = {
    FAILED: switch.ModelFailed.model_json_schema(),
    "vx11.events.greeter.greeted": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}
GOOD = {"provider": "p", "model": "m", "reason": "r"}


@pytest.fixture
def bus(bus):
    bus.answers[CARD] = cards(
        card_of("greeter", Greet),
        card_of("switch", switch.Chat, switch.ListModels),
        card_of("operator_backend", operator_backend.Chat, heard=HEARD),
        card_of("madre", madre.Wake, madre.ListActors),
    )
    bus.answers[GREET] = {"text": "hello Ana"}
    return bus


async def test_a_call_reaches_the_verb_as_its_card_says(link):
    reply = await link.post("/call/greeter/greet", {"name": "Ana"}, headers={"Idempotency-Key": "k1"})
    assert (reply.status, reply.json) == (200, {"text": "hello Ana"})
    (asked,) = link.bus.of(GREET)
    assert (asked.body, asked.timeout, asked.idempotent, asked.request_id) == ({"name": "Ana"}, 7.0, True, "k1")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a", "times": "x"}, "times"),
        ({"name": "a", "age": 3}, "age"),
        (b"{", "body"),
    ],
)
async def test_what_does_not_fit_the_card_is_400_with_its_field_and_wakes_nobody(link, body, field):
    reply = await link.post("/call/greeter/greet", body, headers={"Content-Type": "application/json"})
    assert is_error(reply, "invalid")
    assert reply.json["field"] == field
    assert link.bus.of(GREET) == []


async def test_an_error_of_the_actor_keeps_its_field(link):
    link.bus.answers[GREET] = Failure("invalid", "name: that is no name", field="name")
    reply = await link.post("/call/greeter/greet", {"name": "Ana"})
    assert is_error(reply, "invalid")
    assert reply.json["field"] == "name"


@pytest.mark.parametrize("path", ["/call/nobody/greet", "/call/greeter/shout", "/call/gree%20ter/greet", "/call/$JS/greet"])
async def test_an_unknown_actor_or_verb_is_404(link, path):
    assert is_error(await link.post(path, {}), "not_found")


async def test_every_actor_can_be_asked_to_describe_itself(link):
    """The one verb that no card names."""
    link.bus.answers["vx11.greeter.describe"] = {"card": {}}
    assert (await link.post("/call/greeter/describe")).json == {"card": {}}
    assert link.bus.of("vx11.greeter.describe")[0].headers["vx11-passive"] == "1"


async def test_a_card_is_asked_for_once_in_a_while(link):
    for _ in range(5):
        await link.post("/call/greeter/greet", {"name": "Ana"})
    assert len(link.bus.of(CARD)) == 1


async def test_a_changed_actor_is_noticed_when_the_old_card_would_refuse(link):
    """Edit, call again: the new answer."""
    assert is_error(await link.post("/call/greeter/greet", {"nombre": "Ana"}), "invalid")
    changed = card_of("greeter", Greet, card_version="2")
    changed.verbs[0].request.update(properties={"nombre": {"type": "string"}}, required=["nombre"])
    link.bus.answers[CARD] = cards(changed)
    assert (await link.post("/call/greeter/greet", {"nombre": "Ana"})).status == 200


async def test_an_awake_actor_is_reached_while_madre_is_dead(link):
    await link.post("/call/greeter/greet", {"name": "Ana"})
    link.bus.answers[CARD] = Failure("unavailable", "nobody")
    link.parts.cards._known["greeter"].at = float("-inf")
    assert (await link.post("/call/greeter/greet", {"name": "Ana"})).status == 200
    assert is_error(await link.post("/call/switch/chat", {}), "unavailable")


async def test_the_scope_of_the_verb_is_needed_too(link):
    """`command` alone does not open the power panel by another way."""
    link.bus.answers["vx11.madre.wake"] = {"service": "switch", "from": "dormant", "to": "active", "elapsed_ms": 1}
    command = link.new_token("command")
    reply = await link.post("/call/madre/wake", {"name": "switch"}, token=command)
    assert is_error(reply, "forbidden")
    assert reply.json["scope"] == "power"
    both = link.new_token("command", "power")
    assert (await link.post("/call/madre/wake", {"name": "switch"}, token=both)).status == 200
    assert (await link.post("/call/greeter/greet", {"name": "Ana"}, token=command)).status == 200


async def test_a_verb_that_streams_does_so_when_asked(link):
    body = {"messages": [{"role": "user", "content": "hi"}]}
    link.bus.answers["vx11.switch.chat"] = [{"text": "a"}, {"text": "whole"}]
    reply = await link.post("/call/switch/chat", body, headers={"Accept": "text/event-stream"})
    assert frames(reply.text) == [("chunk", {"text": "a"}), ("reply", {"text": "whole"})]
    link.bus.answers["vx11.switch.chat"] = {"text": "whole"}
    assert (await link.post("/call/switch/chat", body)).json == {"text": "whole"}


async def test_a_verb_that_cannot_stream_answers_once(link):
    reply = await link.post("/call/greeter/greet", {"name": "Ana"}, headers={"Accept": "text/event-stream"})
    assert reply.json == {"text": "hello Ana"}


async def test_an_event_is_stored_and_its_number_told(link):
    reply = await link.post("/events/switch/model_failed", GOOD, headers={"X-Correlation-Id": "conversation-1"})
    assert (reply.status, reply.json) == (
        200,
        {"subject": FAILED, "sequence": 1, "checked": True, "correlation_id": "conversation-1"},
    )
    ((subject, body, _, headers),) = link.bus.published
    assert (subject, body) == (FAILED, b'{"provider": "p", "model": "m", "reason": "r"}')
    assert headers["vx11-caller"] == link.token.split("_")[1]


async def test_an_idempotency_key_is_the_id_by_which_the_stream_keeps_an_event_once(link):
    await link.post("/events/switch/model_failed", GOOD, headers={"Idempotency-Key": "once"})
    assert link.bus.published[0][2] == "once"


async def test_an_event_that_somebody_hears_must_fit_his_card(link):
    """The card that knows its form is that of another actor than the one it is of."""
    reply = await link.post("/events/greeter/greeted", {"name": 3})
    assert is_error(reply, "invalid")
    assert reply.json["field"] == "name"
    assert link.bus.published == []
    assert (await link.post("/events/greeter/greeted", {"name": "Ana"})).json["checked"] is True


async def test_an_event_of_the_schemas_must_fit_its_class_also_when_nobody_hears_it(link):
    link.bus.answers[CARD] = cards(card_of("switch"))
    assert is_error(await link.post("/events/switch/model_failed", {"provider": "p"}), "invalid")
    assert (await link.post("/events/switch/model_failed", GOOD)).json["checked"] is True


async def test_an_event_may_have_more_fields_than_its_class(link):
    assert (await link.post("/events/switch/model_failed", GOOD | {"since": "noon"})).status == 200


async def test_an_event_that_nobody_knows_is_stored_unchecked_but_is_an_object(link):
    assert (await link.post("/events/switch/warmed_up", {"ms": 3})).json["checked"] is False
    assert is_error(await link.post("/events/switch/warmed_up", [1]), "invalid")
    assert [subject for subject, *_ in link.bus.published] == ["vx11.events.switch.warmed_up"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/events/power/activate", "forbidden"),
        ("/events/power/slept", "forbidden"),
        ("/events/jobs/done", "not_found"),
        ("/events/nobody/came", "not_found"),
        ("/events/switch/Came", "not_found"),
        ("/events/switch/a.b", "not_found"),
        ("/events/switch/%3E", "not_found"),
    ],
)
async def test_what_is_no_address_or_not_the_doors_to_tell_is_refused(link, path, code):
    assert is_error(await link.post(path, {}), code)
    assert link.bus.published == []


async def test_a_full_store_is_told(link):
    link.bus.answers[FAILED] = Failure("storage_full", "no space")
    assert is_error(await link.post("/events/switch/model_failed", GOOD), "storage_full")


async def test_cards_are_not_asked_for_again_while_their_version_is_the_same(link):
    link.bus.answers[LIST] = listed(*(actor(name, card_version="v1") for name in ("switch", "operator_backend")))
    known = {name: card_of(name, heard=HEARD, card_version="v1") for name in ("switch", "operator_backend")}
    link.bus.answers[CARD] = cards(*known.values())
    await link.post("/events/switch/model_failed", GOOD)
    first = len(link.bus.of(CARD))
    for one in link.parts.cards._known.values():
        one.at = float("-inf")
    await link.post("/events/switch/model_failed", GOOD)
    assert [asked.body["name"] for asked in link.bus.of(CARD)[first:]] == ["switch"]
