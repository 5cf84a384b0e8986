"""The OpenAI door of a whole system, used by the official client as it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.e2e.house import House, until
from tests.switch.scripted import (
    Exchange,
    Script,
    Server,
    cuts_after,
    lists,
    refuses,
    says,
    scripted,
    stays_silent,
)

HELLO: Any = [{"role": "user", "content": "¡hola! 🦑"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
MANY = 200
LEFT_S = 2.0
"""From the client's leaving until the provider sees it: a second is promised, another one is for a busy machine."""
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@asynccontextmanager
async def client(home: House, token: str = "") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=token or home.token, base_url=f"{home.door}/v1", max_retries=0) as made:
        yield made


@asynccontextmanager
async def provider(home: House, *scripts: Script, more: str = "") -> AsyncIterator[Server]:
    """One provider, `studio`, with the model `tiny`; its circuit is as new."""
    file = home.home / "providers.toml"
    async with scripted(*scripts) as server:
        file.write_text(f'[studio]\nurl = "{server.url}"\nmodel = "tiny"\n{more}')
        try:
            yield server
        finally:
            file.unlink()
            await home.sleep("switch")


async def test_a_chat_is_answered_whole(home: House) -> None:
    async with provider(home, says("Hel", "lo", usage=USAGE)) as server, client(home) as ai:
        answer = await ai.chat.completions.create(model="auto", messages=HELLO, temperature=0.5, user="ana", seed=4)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello", "stop")
    assert answer.model == "tiny"
    assert answer.usage is not None
    assert answer.usage.to_dict() == USAGE
    assert answer.model_extra is not None
    assert answer.model_extra["vx11"]["provider"] == "studio"
    sent = server.asked[-1].document
    assert (sent["messages"], sent["temperature"], sent["seed"]) == (HELLO, 0.5, 4)


@pytest.mark.parametrize("model", ["auto", "studio", "tiny", "studio/tiny"])
async def test_a_model_has_many_names(home: House, model: str) -> None:
    async with provider(home, says("yes")) as server, client(home) as ai:
        answer = await ai.chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == "yes"
    assert server.asked[-1].document["model"] == "tiny"


async def test_a_chat_is_streamed_as_it_is_said(home: House) -> None:
    """The first words are there before the last ones are made."""
    go_on = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("first")
        await go_on.wait()
        await exchange.say(", last")
        await exchange.finish(usage=USAGE)

    async with provider(home, script), client(home) as ai:
        stream = await ai.chat.completions.create(
            model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            go_on.set()
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert said[0] == "first"
    assert "".join(said) == "first, last"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert {chunk.model for chunk in chunks} == {"tiny"}
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.to_dict(), chunks[-1].choices) == (USAGE, [])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_what_a_reasoning_model_thinks_is_kept_apart(home: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say(reasoning_content="hm, ")
        await exchange.say(reasoning_content="well")
        await exchange.say("42")
        await exchange.finish()

    async with provider(home, script), client(home) as ai:
        whole = await ai.chat.completions.create(model="auto", messages=HELLO)
        stream = await ai.chat.completions.create(model="auto", messages=HELLO, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    message = whole.choices[0].message
    assert (message.content, (message.model_extra or {})["reasoning_content"]) == ("42", "hm, well")
    thought = [(delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas]
    assert ("".join(thought), "".join(delta.content or "" for delta in deltas)) == ("hm, well", "42")


async def test_tools_are_called_whole_and_streamed(home: House) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    rest = {"index": 0, "function": {"arguments": 'ty": "Vigo"}'}}

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": [call]}}]})
        await exchange.event({"choices": [{"index": 0, "delta": {"tool_calls": [rest]}}]})
        await exchange.finish("tool_calls")

    async with provider(home, script) as server, client(home) as ai:
        answer = await ai.chat.completions.create(model="auto", messages=HELLO, tools=[WEATHER], tool_choice="required")
        async with ai.chat.completions.stream(model="auto", messages=HELLO, tools=[WEATHER]) as stream:
            async for _ in stream:
                pass
            streamed = await stream.get_final_completion()
    assert server.asked[0].document["tools"] == [WEATHER]
    assert server.asked[0].document["tool_choice"] == "required"
    for choice in (answer.choices[0], streamed.choices[0]):
        assert choice.finish_reason == "tool_calls"
        (made,) = choice.message.tool_calls or ()
        assert made.type == "function"
        assert (made.id, made.function.name, made.function.arguments) == ("call_1", "weather", '{"city": "Vigo"}')


async def test_the_result_of_a_tool_goes_back_as_the_client_keeps_it(home: House) -> None:
    """A client sends the message that it got, with all the fields of its own class."""
    said: Any = {
        "role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None, "function_call": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    }  # fmt: skip
    result: Any = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    async with provider(home, says("It rains.")) as server, client(home) as ai:
        answer = await ai.chat.completions.create(model="auto", messages=[*HELLO, said, result], tools=[WEATHER])
    assert answer.choices[0].message.content == "It rains."
    sent = server.asked[-1].document["messages"]
    assert sent[1]["tool_calls"] == said["tool_calls"]
    assert sent[2] == result


async def test_a_json_schema_is_passed_on(home: House) -> None:
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "city", "strict": True, "schema": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }
    async with provider(home, says('{"name": ', '"Vigo"}')) as server, client(home) as ai:
        answer = await ai.chat.completions.create(model="auto", messages=HELLO, response_format=form)
    assert json.loads(answer.choices[0].message.content or "") == {"name": "Vigo"}
    assert server.asked[-1].document["response_format"] == form


async def test_the_models_are_those_that_answer_now(home: House) -> None:
    async with provider(home, says("I am awake."), lists("tiny", "org/other")), client(home) as ai:
        await ai.chat.completions.create(model="auto", messages=HELLO)
        listed = [model async for model in ai.models.list()]
        one = await ai.models.retrieve("tiny")
        deep = await ai.models.retrieve("studio/org/other")
        with pytest.raises(openai.NotFoundError) as unknown:
            await ai.models.retrieve("gpt-99")
    assert [(model.id, model.owned_by) for model in listed] == [("auto", "vx11"), ("tiny", "studio"), ("org/other", "studio")]
    assert (one.id, one.object, deep.owned_by) == ("tiny", "model", "studio")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


async def test_a_model_that_nobody_has_is_not_another_one(home: House) -> None:
    async with provider(home, says("no")) as server, client(home) as ai:
        with pytest.raises(openai.NotFoundError) as failed:
            await ai.chat.completions.create(model="gpt-99", messages=HELLO)
    assert (failed.value.code, failed.value.param, server.asked) == ("model_not_found", "model", [])


async def test_a_wrong_token_is_an_authentication_error_and_a_poor_one_a_permission_error(home: House) -> None:
    revoked, text = home.tokens.new()
    home.tokens.revoke(revoked.id)
    for token in ("wrong", text):
        async with client(home, token) as ai:
            with pytest.raises(openai.AuthenticationError) as failed:
                await ai.models.list()
            assert failed.value.code == "invalid_api_key"
            with pytest.raises(openai.AuthenticationError):
                await ai.chat.completions.create(model="auto", messages=HELLO)
    async with client(home, home.tokens.new(("read",))[1]) as ai:
        with pytest.raises(openai.PermissionDeniedError, match="scope chat"):
            await ai.chat.completions.create(model="auto", messages=HELLO)


async def test_without_a_model_the_service_is_not_available(home: House) -> None:
    async with client(home) as ai:
        with pytest.raises(openai.InternalServerError) as failed:
            await ai.chat.completions.create(model="auto", messages=HELLO)
    assert (failed.value.status_code, failed.value.type) == (503, "server_error")


async def test_a_closed_gate_is_said_to_be_one(home: House) -> None:
    await home.sleep("switch")
    await home.order("set_gate", name="switch", gate="closed")
    try:
        async with client(home) as ai:
            with pytest.raises(openai.PermissionDeniedError) as failed:
                await ai.chat.completions.create(model="auto", messages=HELLO)
            with pytest.raises(openai.PermissionDeniedError):
                await ai.models.list()
    finally:
        await home.order("set_gate", name="switch", gate="on_demand")
    assert failed.value.code == "off_by_policy"


async def test_an_answer_that_breaks_off_raises(home: House) -> None:
    """It must not look like a whole one."""
    async with provider(home, cuts_after("half of ")), client(home) as ai:
        said = []
        stream = await ai.chat.completions.create(model="auto", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as failed:
            while True:
                said.append((await anext(stream)).choices[0].delta.content or "")
        assert "".join(said).startswith("half of ")
        assert failed.value.code == "crashed"
        with pytest.raises(openai.InternalServerError):
            await ai.chat.completions.create(model="auto", messages=HELLO)


async def test_a_switch_that_is_killed_in_the_middle_raises(home: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("word")
        await exchange.hold()

    async with provider(home, script, says("as good as new")), client(home) as ai:
        stream = await ai.chat.completions.create(model="auto", messages=HELLO, stream=True)
        assert (await anext(stream)).choices[0].delta.content == "word"
        os.kill((await home.status("switch"))["pid"], signal.SIGKILL)
        with pytest.raises(openai.APIError) as failed:
            await anext(stream)
        assert failed.value.code == "crashed"
        again = await ai.chat.completions.create(model="auto", messages=HELLO)
    assert again.choices[0].message.content == "as good as new"


async def test_a_provider_that_refuses_is_told(home: House) -> None:
    async with provider(home, refuses(400, "stop has too many words")), client(home) as ai:
        with pytest.raises(openai.BadRequestError, match="too many words"):
            await ai.chat.completions.create(model="auto", messages=HELLO)


async def test_who_goes_on_is_seen_where_it_goes_on(home: House) -> None:
    """One answer, two models: the field `model` changes in the middle."""
    file = home.home / "providers.toml"
    async with scripted(cuts_after("The sea ", "is ")) as one, scripted(says("blue.")) as two, client(home) as ai:
        file.write_text(f'[first]\nurl = "{one.url}"\nmodel = "a"\n[second]\nurl = "{two.url}"\nmodel = "b"\nprefill = true\n')
        try:
            stream = await ai.chat.completions.create(model="auto", messages=HELLO, stream=True)
            said = [(chunk.model, chunk.choices[0].delta.content or "") async for chunk in stream]
        finally:
            file.unlink()
            await home.sleep("switch")
    models = [model for model, _ in said]
    assert sorted(models) == models
    assert set(models) == {"a", "b"}
    assert "".join(text for _, text in said) == "The sea is blue."


async def test_a_conversation_that_is_too_long_says_so(home: House) -> None:
    """By what is declared of the model, without asking it, and by its own word."""
    long: Any = [{"role": "user", "content": "word " * 3_000}]
    async with provider(home, says("never"), more="context = 1024\n") as server, client(home) as ai:
        with pytest.raises(openai.BadRequestError) as failed:
            await ai.chat.completions.create(model="auto", messages=long)
        assert (failed.value.code, server.asked) == ("context_length_exceeded", [])
    async with provider(home, refuses(413, "too long")), client(home) as ai:
        with pytest.raises(openai.BadRequestError) as failed:
            await ai.chat.completions.create(model="auto", messages=long)
        assert failed.value.code == "context_length_exceeded"


async def test_over_budget_is_told_once(home: House) -> None:
    """The official client would ask again at other 429s, with its usual settings."""
    asked = 0
    async with provider(home, says("never"), more="[budgets]\nday = { tokens = 5 }\n") as server:
        async with AsyncOpenAI(api_key=home.token, base_url=f"{home.door}/v1") as ai:
            with pytest.raises(openai.RateLimitError) as failed:
                await ai.chat.completions.create(model="auto", messages=HELLO)
        asked = len(server.asked)
    assert (failed.value.code, failed.value.type, asked) == ("insufficient_quota", "insufficient_quota", 0)
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert failed.value.response.request.headers["x-stainless-retry-count"] == "0"


async def test_texts_become_vectors(home: House) -> None:
    """The client itself asks for base64 when it is not told, and decodes it."""
    async with client(home) as ai:
        texts = ["The cat sleeps", "El gato duerme", "The invoice is overdue"]
        plain = await ai.embeddings.create(model="auto", input=texts)
        one = await ai.embeddings.create(model="auto", input=texts[0], encoding_format="float")
    vectors = [item.embedding for item in plain.data]
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    assert one.data[0].embedding == pytest.approx(vectors[0], abs=1e-6)
    assert plain.usage.prompt_tokens > 3


async def test_many_texts_become_as_many_vectors(home: House) -> None:
    """Their vectors together are more than one message of the bus can hold."""
    async with client(home) as ai:
        made = await ai.embeddings.create(model="auto", input=[f"text {n}" for n in range(MANY)])
    assert [item.index for item in made.data] == list(range(MANY))
    assert len({tuple(item.embedding) for item in made.data}) == MANY


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_leaves_before_the_first_word_ends_the_generation(home: House, stream: bool) -> None:
    async with provider(home, stays_silent) as server, client(home) as ai:
        asking = asyncio.create_task(ai.chat.completions.create(model="auto", messages=HELLO, stream=stream))
        (asked,) = await server.requests(1)
        asking.cancel()
        async with asyncio.timeout(LEFT_S):
            await asked.gone.wait()


async def test_a_client_that_leaves_in_the_middle_ends_the_generation(home: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("word")
        await exchange.hold()

    async with provider(home, script) as server, client(home) as ai:
        stream = await ai.chat.completions.create(model="auto", messages=HELLO, stream=True)
        assert (await anext(stream)).choices[0].delta.content == "word"
        await stream.close()
        async with asyncio.timeout(LEFT_S):
            await server.asked[0].gone.wait()


async def test_the_list_of_a_sleeping_switch_is_the_last_one_and_wakes_nobody(home: House) -> None:
    """A look does not wake; but nobody has to know what nobody has ever told."""
    async with provider(home, says("I am awake."), lists("tiny")), client(home) as ai:
        await ai.chat.completions.create(model="auto", messages=HELLO)
        first = [model.id async for model in ai.models.list()]
        await home.sleep("switch")
        wakes = (await home.status("switch"))["wakes"]

        async def seen_asleep() -> bool:
            services = (await home.get("/madre/power/status")).json["services"]
            return "dormant" in [one["power"] for one in services if one["name"] == "switch"]

        await until(seen_asleep, "the gateway sees switch asleep")
        again = [model.id async for model in ai.models.list()]
        status = await home.status("switch")
    assert again == first == ["auto", "tiny"]
    assert (status["wakes"], status["state"]) == (wakes, "dormant")
