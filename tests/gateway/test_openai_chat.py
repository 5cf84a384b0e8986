"""POST /v1/chat/completions before a scripted switch: what is asked, what is told, frame by frame, and who has left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp.http_writer import StreamWriter
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.http.presence import LOOK_S
from schemas.errors import Failure
from schemas.switch import ModelChunk, ModelReply, Speaker
from tests.gateway.conftest import Link, OpenLink
from tests.gateway.scripted import Raw

ASKED = "vx11.switch.chat"
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**HELLO, "stream": True}
TINY = Speaker(provider="studio", model="tiny")
SMOL = Speaker(provider="local", model="smol", note="offline model, 135M, English")
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
QUICK_S = 1.0
"""A quarter of a second is the rule, the rest is for a busy machine."""


def reply(text: str = "Hello", **more: Any) -> ModelReply:
    return ModelReply(text=text, model="tiny", provider="studio", finish_reason="stop", latency_ms=5.0, **more)


def first(text: str, speaker: Speaker = TINY, **more: Any) -> ModelChunk:
    return ModelChunk(text=text, speaker=speaker, **more)


async def told(link: Link, body: dict[str, Any] = STREAM) -> tuple[list[Any], str]:
    """The chunks of a stream, each held against the official class, and the whole as it came."""
    async with link.stream("POST", CHAT, json=body) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        text = (await answer.read()).decode()
    datas = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame]
    found = [json.loads(data) for data in datas if data != "[DONE]"]
    for document in found:
        if "error" not in document:
            ChatCompletionChunk.model_validate(document)
    return found, text


async def test_an_answer_is_framed_as_theirs_are(link: Link) -> None:
    """`data:` and nothing else, an empty line behind each, `[DONE]` at the end."""
    link.bus.answers[ASKED] = [first("Hel"), ModelChunk(text="lo\n\r\n\u2028 🦑"), reply("Hello\n\r\n\u2028 🦑")]
    chunks, text = await told(link)
    lines = text.split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line and "\r" not in line for line in lines[:-1])
    assert (lines[-2], lines[-1]) == ("data: [DONE]", "")
    assert text.isascii(), "some clients take U+2028 for the end of a line"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello\n\r\n\u2028 🦑"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1


async def test_the_last_chunk_says_who_answered_and_why(link: Link) -> None:
    speakers = [TINY.model_copy(update={"characters": 5})]
    link.bus.answers[ASKED] = [first("Hello"), reply(reason="the cheapest", speakers=speakers, note="quick")]
    chunks, _ = await told(link)
    said = {"provider": "studio", "reason": "the cheapest", "note": "quick", "speakers": [one.model_dump() for one in speakers]}
    assert chunks[-1]["vx11"] == said
    whole = (await link.post(CHAT, HELLO)).json
    assert whole["vx11"] == said


async def test_the_model_is_whoever_speaks_now(link: Link) -> None:
    """Another one has gone on: everybody can see where."""
    last = ModelReply(text="one two", model="smol", provider="local", latency_ms=1.0, finish_reason="stop")
    link.bus.answers[ASKED] = [first("one"), first(" two", SMOL), last]
    async with link.stream("POST", CHAT, json=STREAM) as answer:
        assert answer.headers["X-Vx11-Provider"] == "studio"
    chunks, _ = await told(link)
    assert [chunk["model"] for chunk in chunks] == ["tiny", "smol", "smol"]
    assert [chunk["vx11"]["speaker"]["note"] for chunk in chunks[:2]] == ["", SMOL.note]
    whole = await link.post(CHAT, HELLO)
    assert (whole.json["model"], whole.headers["X-Vx11-Provider"]) == ("smol", "local")


async def test_a_whole_answer_is_one_of_theirs(link: Link) -> None:
    counted = {"prompt_tokens": 3, "completion_tokens": 4}
    link.bus.answers[ASKED] = [first("", reasoning="hm"), ModelChunk(text="Hello"), reply(usage=counted)]
    made = ChatCompletion.model_validate((await link.post(CHAT, HELLO)).json)
    assert made.choices[0].message.content == "Hello"
    assert made.usage is not None
    assert made.usage.total_tokens == 7
    assert made.choices[0].message.to_dict()["reasoning_content"] == "hm"


async def test_counts_that_nobody_made_are_not_made_up(link: Link) -> None:
    link.bus.answers[ASKED] = [first("Hello"), reply()]
    assert (await link.post(CHAT, HELLO)).json["usage"] is None
    chunks, _ = await told(link, {**STREAM, "stream_options": {"include_usage": True}})
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], None)
    assert all(chunk["choices"] for chunk in (await told(link))[0]), "and nobody gets the chunk without a choice unasked"


async def test_an_end_that_their_classes_do_not_know_is_a_plain_one(link: Link) -> None:
    """Some servers say `eos` or nothing; a client's class would refuse the answer."""
    for told_by_server in ("eos", ""):
        link.bus.answers[ASKED] = [first("Hello"), reply().model_copy(update={"finish_reason": told_by_server})]
        assert ChatCompletion.model_validate((await link.post(CHAT, HELLO)).json).choices[0].finish_reason == "stop"


async def test_an_answer_that_came_whole_is_streamed_all_the_same(link: Link) -> None:
    link.bus.answers[ASKED] = [reply("", tool_calls=[CALL]).model_copy(update={"finish_reason": ""})]
    chunks, text = await told(link)
    assert chunks[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **CALL}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert text.endswith("data: [DONE]\n\n")
    whole = ChatCompletion.model_validate((await link.post(CHAT, HELLO)).json)
    assert (whole.choices[0].message.content, len(whole.choices[0].message.tool_calls or ())) == (None, 1)


async def test_a_failure_in_the_middle_is_an_error_without_an_end(link: Link) -> None:
    """With an end the client would take what it has for the whole."""
    link.bus.answers[ASKED] = [first("half "), Failure("crashed", "cut off after 5 characters", characters=5)]
    chunks, text = await told(link)
    assert "[DONE]" not in text
    error = chunks[-1]["error"]
    assert (error["code"], error["message"], error["vx11"]["characters"]) == ("crashed", "cut off after 5 characters", 5)


async def test_a_gateway_that_stops_says_so_in_the_same_shape(open_link: OpenLink) -> None:
    """Cut off in the middle, the answer must not look whole."""
    async with AsyncExitStack() as outside:
        async with open_link(stop_s=0.05) as link:
            link.bus.answers[ASKED] = [first("half "), asyncio.Event()]
            session = await outside.enter_async_context(aiohttp.ClientSession())
            headers = {"X-VX11-Token": link.token}
            answer = await outside.enter_async_context(session.post(link.url(CHAT), json=STREAM, headers=headers))
            assert b"half" in await answer.content.readline()
        rest = (await answer.content.read()).decode()
    assert "[DONE]" not in rest
    assert json.loads(rest.strip().removeprefix("data: "))["error"]["code"] == "cancelled"


async def test_switch_is_asked_what_the_client_said_and_nothing_else(link: Link) -> None:
    """Never sorted, never trimmed, in nobody's name but the token's; strange fields change nothing."""
    link.bus.answers[ASKED] = [reply()]
    strange = {
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "top_k": 4,
        "trim": True,
        "sort": True,
        "holder": "x",
    }
    body = {**HELLO, **strange, "max_tokens": 5, "max_completion_tokens": 7, "stop": ["a"], "n": 1, "user": "ana", "top_p": 1}
    assert (await link.post(CHAT, body)).status == 200
    (asked,) = link.bus.of(ASKED)
    assert (asked.body.pop("trim", False), asked.body.pop("sort", False), asked.body.pop("holder", "")) == (False, False, "")
    assert asked.body == {
        "model": "auto",
        "messages": HELLO["messages"],
        "max_tokens": 7,
        "stop": ["a"],
        "top_p": 1.0,
        "session_id": "",
    }
    assert asked.headers["vx11-caller"] == link.token.split("_")[1]


@pytest.mark.parametrize("begun", [False, True], ids=["before the first word", "in the middle"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_has_gone_is_noticed_at_once(link: Link, stream: bool, begun: bool) -> None:
    """Whoever waits for nobody costs a model its time: the stream towards switch is closed."""
    entered = asyncio.Event()

    def said(_: Any) -> Any:
        entered.set()
        return [*([first("word")] if begun else []), asyncio.Event()]

    link.bus.answers[ASKED] = said
    data = json.dumps({**HELLO, "stream": stream}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-VX11-Token: {link.token}\r\nContent-Length: {len(data)}\r\n\r\n"
    async with Raw.open(link.bound.public.port, head.encode() + data) as raw:
        await entered.wait()
        if begun and stream:
            assert b"200 OK" in await raw.head()
        assert link.bus.closed_streams == 0
    left = time.monotonic()
    async with asyncio.timeout(5):
        while not link.bus.closed_streams:
            await asyncio.sleep(0.005)
    assert time.monotonic() - left < QUICK_S
    async with asyncio.timeout(5):
        while link.parts.places.taken:
            await asyncio.sleep(0.005)


async def test_a_reader_that_takes_nothing_is_let_go_and_so_is_its_answer(open_link: OpenLink) -> None:
    async with open_link(write_s=0.3) as link:
        link.bus.answers[ASKED] = [first("x" * 20_000)] * 2_000
        data = json.dumps(STREAM).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nX-VX11-Token: {link.token}\r\nContent-Length: {len(data)}\r\n\r\n"
        async with Raw.open(link.bound.public.port, head.encode() + data) as raw:
            assert b"200 OK" in await raw.head()
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport has it
            async with asyncio.timeout(10):
                while not link.bus.closed_streams or link.parts.places.taken:
                    await asyncio.sleep(0.005)


async def test_a_client_that_waits_is_waited_for(link: Link) -> None:
    """Longer than the looks at it are apart."""
    ready = asyncio.Event()
    link.bus.answers[ASKED] = [ready, first("Hello"), reply()]
    asking = asyncio.create_task(link.post(CHAT, HELLO))
    asyncio.get_running_loop().call_later(LOOK_S * 3, ready.set)
    assert (await asking).json["choices"][0]["message"]["content"] == "Hello"


async def test_the_head_leaves_with_the_first_word(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write, one wake of whoever reads: that is a tenth of what the way of a first word costs."""
    written: list[bytes] = []
    lines = StreamWriter._writelines

    def writes(writer: StreamWriter, parts: Iterable[bytes]) -> None:
        written.append(b"".join(kept := list(parts)))
        lines(writer, kept)

    monkeypatch.setattr(StreamWriter, "_writelines", writes)
    link.bus.answers[ASKED] = [first("Hello"), reply("Hello")]
    await told(link)
    assert [b'"Hello"' in data for data in written if data.startswith(b"HTTP/1.1 200")] == [True]
