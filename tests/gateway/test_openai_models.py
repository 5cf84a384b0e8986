"""GET /v1/models and POST /v1/embeddings before a scripted switch."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse, Model

from gateway.http.openai import models
from schemas.errors import Failure
from schemas.switch import Embeddings, ModelInfo, ModelList
from tests.gateway.conftest import Link
from tests.gateway.scripted import LIST, Asked, actor, listed

ASKED = "vx11.switch.list_models"
EMBED = "vx11.switch.embed"
TWO = ModelList(models=[ModelInfo(id=name, provider=who) for who, name in (("a", "m"), ("a", "org/n"), ("b", "m"))])
VECTORS = [[0.6, -0.8, 0.0], [1.0, 0.0, 0.25]]


def told(*vectors: list[float]) -> Embeddings:
    return Embeddings(model="e5", provider="local", vectors=list(vectors), tokens=5)


async def ids(link: Link) -> list[str]:
    reply = await link.get("/v1/models")
    assert reply.status == 200, reply.text
    return [Model.model_validate(one).id for one in reply.json["data"]]


async def state(link: Link, name: str, **more: Any) -> None:
    link.bus.answers[LIST] = listed(actor("switch", name, **more))
    link.parts.observed.stale()


async def test_auto_is_first_and_a_name_that_two_have_has_a_way_to_each(link: Link) -> None:
    link.bus.answers[ASKED] = TWO
    assert await ids(link) == ["auto", "m", "a/m", "org/n", "b/m"]


@pytest.mark.parametrize("name", ["auto", "m", "a", "b/m", "a/org/n", "a%2Forg%2Fn", "org/n"])
async def test_every_name_that_a_chat_takes_can_be_looked_up(link: Link, name: str) -> None:
    link.bus.answers[ASKED] = TWO
    reply = await link.get(f"/v1/models/{name}")
    assert Model.model_validate(reply.json).id == name.replace("%2F", "/")


async def test_a_sleeping_switch_is_asked_once_and_then_remembered(link: Link) -> None:
    link.bus.answers[ASKED] = TWO
    await state(link, "dormant")
    assert await ids(link) == await ids(link)
    assert len(link.bus.of(ASKED)) == 1
    assert link.bus.of(ASKED)[0].headers["vx11-passive"] == "1", "nor does the question keep it awake"


async def test_an_awake_switch_is_asked_each_time(link: Link) -> None:
    link.bus.answers[ASKED] = TWO
    await state(link, "active")
    await ids(link)
    link.bus.answers[ASKED] = ModelList(models=TWO.models[:1])
    assert await ids(link) == ["auto", "m"]


async def test_a_list_without_a_model_and_an_old_one_are_not_kept(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first model may be on its way: after the first start it is fetched in the background."""
    link.bus.answers[ASKED] = ModelList(models=[])
    await state(link, "dormant")
    assert await ids(link) == ["auto"]
    link.bus.answers[ASKED] = TWO
    assert len(await ids(link)) > 1
    monkeypatch.setattr(models, "KEPT_S", 0.0)
    await ids(link)
    assert len(link.bus.of(ASKED)) == 3


async def test_a_closed_switch_has_no_models(link: Link) -> None:
    link.bus.answers[ASKED] = TWO
    await ids(link)
    link.bus.answers[ASKED] = Failure("off_by_policy", "its gate is closed")
    await state(link, "dormant", allowed=False)
    assert (await link.get("/v1/models")).status == 403


@pytest.mark.parametrize(
    "sent", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=["plain", "float", "base64"]
)
async def test_vectors_come_as_numbers_or_as_base64(link: Link, sent: dict[str, str]) -> None:
    link.bus.answers[EMBED] = told(*VECTORS)
    reply = await link.post("/v1/embeddings", {"model": "auto", "input": ["one", "dos"], **sent, "user": "ana"})
    found = [one["embedding"] for one in reply.json["data"]]
    if sent.get("encoding_format") == "base64":
        found = [list(struct.unpack("<3f", base64.b64decode(text))) for text in found]
    else:
        made = CreateEmbeddingResponse.model_validate(reply.json)
        assert (made.model, made.usage.total_tokens, [one.index for one in made.data]) == ("e5", 5, [0, 1])
    assert found == [pytest.approx(vector) for vector in VECTORS]
    assert link.bus.of(EMBED)[0].body == {"input": ["one", "dos"], "model": None}


async def test_one_text_is_one_vector_and_a_name_is_passed_on(link: Link) -> None:
    link.bus.answers[EMBED] = lambda asked: told(*VECTORS[: len(asked.body["input"])])
    reply = await link.post("/v1/embeddings", {"model": "e5", "input": "one", "dimensions": 3})
    assert len(reply.json["data"]) == 1
    assert link.bus.of(EMBED)[0].body == {"input": ["one"], "model": "e5"}


@pytest.mark.parametrize(
    ("sent", "param", "words"),
    [
        ({"input": [1, 2, 3]}, "input", "tokens"),
        ({"input": [[1, 2], [3]]}, "input", "tokens"),
        ({"input": []}, "input", "1 to 256"),
        ({"input": ["x"] * 257}, "input", "1 to 256"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format", "float or base64"),
        ({"input": "x", "dimensions": 2}, "dimensions", "3 numbers"),
        ({}, "input", "send a text"),
    ],
    ids=["tokens", "lists of tokens", "nothing", "too many", "another form", "other dimensions", "without"],
)
async def test_what_cannot_be_embedded_is_refused_with_what_to_do(
    link: Link, sent: dict[str, Any], param: str, words: str
) -> None:
    link.bus.answers[EMBED] = told(VECTORS[0])
    reply = await link.post("/v1/embeddings", {"model": "auto", **sent})
    assert (reply.status, reply.json["error"]["param"]) == (400, param)
    assert words in reply.json["error"]["message"]


async def test_without_an_embedding_model_nobody_need_ask_again(link: Link) -> None:
    link.bus.answers[EMBED] = Failure("not_installed", "pip install vx11[embed]")
    reply = await link.post("/v1/embeddings", {"model": "auto", "input": "x"})
    assert (reply.status, reply.headers["X-Should-Retry"]) == (501, "false")


async def test_a_vector_is_looked_at_by_its_own_scope(link: Link) -> None:
    def said(asked: Asked) -> Embeddings:
        assert asked.headers["vx11-scopes"] == "chat"
        return told(VECTORS[0])

    link.bus.answers[EMBED] = said
    chat = link.new_token("chat")
    assert (await link.post("/v1/embeddings", {"model": "auto", "input": "x"}, token=chat)).status == 200
    assert (await link.get("/v1/models", token=chat)).status == 403
