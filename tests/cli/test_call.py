"""`call`: the card says what a verb takes; the answer is JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.card import Card, Verb
from schemas.errors import Failure

REQUEST = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
CARD = Card(
    name="greeter",
    summary="greets",
    verbs=[Verb(name="greet", subject="vx11.greeter.greet", request=REQUEST, timeout=7.0)],
)


def detail(card: Card) -> dict[str, Any]:
    return {"status": {"name": card.name, "state": "dormant"}, "card": card.model_dump(mode="json")}


@pytest.fixture(autouse=True)
def greeter(remote) -> None:
    remote.answers["vx11.madre.get_actor"] = detail(CARD)
    remote.answers["vx11.greeter.greet"] = lambda request: {"text": f"Hello, {request['name']}!"}


def test_values_are_read_by_the_verbs_schema(terminal, remote) -> None:
    ran = terminal("call", "greeter.greet", "name=7", "count=7")
    assert ran.document == {"text": "Hello, 7!"}
    assert remote.asked[-1] == ("vx11.greeter.greet", {"name": "7", "count": 7})


def test_the_card_of_a_sleeper_is_madres_to_show(terminal, remote) -> None:
    """Asking the actor itself would wake it to be told that a field is misspelt."""
    terminal("call", "greeter.greet", "nmae=Ana")
    assert remote.asked == [("vx11.madre.get_actor", {"name": "greeter"})]


def test_madre_shows_her_own_card(terminal, remote) -> None:
    card = Card(name="madre", summary="", verbs=[Verb(name="explain", subject="vx11.madre.explain")])
    described = {"card": card.model_dump(mode="json"), "state": "active"}
    remote.answers |= {"vx11.madre.describe": described, "vx11.madre.explain": {"sentence": "it sleeps"}}
    assert terminal("call", "madre.explain").document == {"sentence": "it sleeps"}


def test_the_keeper_can_be_called_although_it_has_no_card(terminal, remote) -> None:
    """madre knows actors only, and would say that there is none of this name."""
    remote.answers["vx11.keeper.stop_replay"] = {"id": "mine"}
    assert terminal("call", "keeper.stop_replay", "id=mine").document == {"id": "mine"}
    assert remote.asked == [("vx11.keeper.stop_replay", {"id": "mine"})]
    ran = terminal("call", "keeper.describe")
    assert "its verbs are accept, " in ran.err
    assert "vx11 call keeper.describe" not in ran.err


def test_the_whole_request_may_be_json_and_single_fields_beat_it(terminal, remote) -> None:
    terminal("call", "greeter.greet", "--json", '{"name": "Bo", "count": 1}', "count=2")
    assert remote.asked[-1][1] == {"name": "Bo", "count": 2}


def test_the_whole_request_may_come_from_a_pipe(terminal) -> None:
    assert terminal("call", "greeter.greet", "--json", "-", stdin='{"name": "Bo"}').document == {"text": "Hello, Bo!"}


def test_through_a_gateway_madre_tells_of_herself_as_of_others(terminal, remote) -> None:
    """A gateway passes on what is on a card; `describe` is on none."""
    card = Card(name="madre", summary="", verbs=[Verb(name="explain", subject="vx11.madre.explain")])
    remote.answers |= {"vx11.madre.get_actor": detail(card), "vx11.madre.explain": {"sentence": "it sleeps"}}
    assert terminal("call", "madre.explain").document == {"sentence": "it sleeps"}


@pytest.mark.parametrize("words", [("greeter",), ("greeter.",), ("a.b.c",), ("greeter.greet", "--json", "[1]")])
def test_what_is_no_call_is_an_error_of_usage(terminal, remote, words) -> None:
    assert terminal("call", *words).code == 2
    assert remote.asked == []


def test_a_missing_field_is_not_sent(terminal, remote) -> None:
    ran = terminal("call", "greeter.greet")
    assert ran.code == 65
    assert "vx11 call greeter.greet name=TEXT" in ran.err
    assert len(remote.asked) == 1


def test_a_verb_that_does_not_exist_is_answered_with_the_nearest(terminal) -> None:
    ran = terminal("call", "greeter.gret", "name=Ana")
    assert ran.code == 66
    assert "vx11 call greeter.greet" in ran.err


def test_every_actor_describes_itself(terminal, remote) -> None:
    remote.answers["vx11.greeter.describe"] = {"state": "dormant"}
    assert terminal("call", "greeter.describe").document == {"state": "dormant"}


def test_an_actor_that_cannot_be_loaded_says_why(terminal, remote) -> None:
    remote.answers["vx11.madre.get_actor"] = detail(Card(name="greeter", summary="", error="SyntaxError, line 3"))
    ran = terminal("call", "greeter.greet", "name=Ana")
    assert ran.code == 69
    assert "SyntaxError, line 3" in ran.err


def test_the_wake_is_told_beside_the_answer_not_in_it(terminal, remote) -> None:
    remote.wake_ms = 18
    ran = terminal("call", "greeter.greet", "name=Ana")
    assert ran.document == {"text": "Hello, Ana!"}
    assert "18 ms" in ran.err


def test_a_stream_is_a_line_of_json_for_each_piece(terminal, remote) -> None:
    remote.pieces["vx11.greeter.greet"] = [{"text": "Hel"}, {"text": "lo"}, {"text": "Hello"}]
    ran = terminal("call", "greeter.greet", "name=Ana", "--stream")
    assert [json.loads(line)["text"] for line in ran.out.splitlines()] == ["Hel", "lo", "Hello"]


def test_a_stream_that_breaks_keeps_what_came_and_fails(terminal, remote) -> None:
    remote.pieces["vx11.greeter.greet"] = [{"text": "Hel"}, Failure("crashed", "cut off")]
    ran = terminal("call", "greeter.greet", "name=Ana", "--stream")
    assert ran.code == 70
    assert json.loads(ran.out.splitlines()[0]) == {"text": "Hel"}
    assert json.loads(ran.out.splitlines()[1])["error"] == "crashed"


def test_a_call_may_belong_to_a_conversation_by_the_name_of_its_id(terminal, remote) -> None:
    """So that `vx11 trace` finds it again."""
    assert terminal("call", "greeter.greet", "name=Ana", "--correlation", "first-call").code == 0
    assert remote.conversation == "first-call"


def test_what_is_no_correlation_id_is_said_so(terminal, remote) -> None:
    assert "8 to 64 letters" in terminal("call", "greeter.greet", "name=Ana", "--correlation", "é").err
    assert remote.asked == []
