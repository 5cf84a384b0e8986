"""The HTTP client against a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from actors.switch.asking.dialect import Piece
from actors.switch.asking.endpoint import opened
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.patience import Limits
from actors.switch.configured.providers import Provider
from tests.switch.asking import SHORT, failure, pieces, stream, whole
from tests.switch.scripted import (
    Exchange,
    cuts_after,
    hangs_up,
    lists,
    refuses,
    says,
    scripted,
    stalls_after,
    stays_silent,
    talks_for_ever,
)

SOON_S = 10.0
"""Less than a provider's time for its first word, and more than a busy machine needs."""


async def test_an_answer_comes_in_its_pieces() -> None:
    async with scripted(says("Hel", "lo", usage={"total_tokens": 7})) as server:
        assert await whole(server.url) == Piece("Hello", finish_reason="stop", usage={"total_tokens": 7})


async def test_the_request_is_what_openai_documents() -> None:
    async with scripted(says("x")) as server:
        await pieces(server.url, key="sk-1")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == "Bearer sk-1"
    assert asked.document["stream"] is True
    assert asked.document["messages"] == [{"role": "user", "content": "¡hola! 🦑"}]


async def test_without_a_key_no_authorization_is_sent() -> None:
    async with scripted(says("x")) as server:
        await pieces(server.url)
    assert "authorization" not in server.asked[0].headers


async def test_characters_split_over_reads_arrive_whole() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        data = 'data: {"choices":[{"delta":{"content":"ñ🦑ü"},"finish_reason":"stop"}]}\r\n\r\n'.encode()
        for byte in data:
            await exchange.chunk(bytes([byte]))
        await exchange.chunk(b"")

    async with scripted(script) as server:
        assert [piece.text for piece in await pieces(server.url)] == ["ñ🦑ü"]


async def test_a_character_split_over_two_events_arrives_whole() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event('{"choices":[{"delta":{"content":"a\\ud83e"}}]}')
        await exchange.event('{"choices":[{"delta":{"content":"\\udd91b"}}]}')
        await exchange.chunk(b'data: {"choices":[{"delta":{"content":"\xf0\x9f"}}]}\n\n')
        await exchange.chunk(b'data: {"choices":[{"delta":{"content":"\xa6\x91c"}}]}\n\n')
        await exchange.finish()

    async with scripted(script) as server:
        assert "".join(piece.text for piece in await pieces(server.url)) == "a🦑b🦑c"


@pytest.mark.parametrize("half", [b"\xf0\x9f", b"\\ud83e"])
async def test_a_character_that_never_gets_whole_is_a_failure(half: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(b'data: {"choices":[{"delta":{"content":"a' + half + b'"}}]}\n\n')
        await exchange.finish()

    assert (await failure(script)).reason == "it ended in half a character"


async def test_what_was_good_is_told_before_what_is_broken_in_the_same_read() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        good = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
        await exchange.chunk(good + good + b"data: {\n\n" + good)
        await exchange.hold()

    heard = []
    async with scripted(script) as server, opened() as endpoint:
        with pytest.raises(ProviderFailed, match="no JSON"):
            async with aclosing(stream(endpoint, Provider("test", server.url, "m"))) as told:
                async for piece in told:
                    heard += [piece.text]
    assert heard == ["HiHi"]


async def test_comments_keep_nobody_waiting() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(b": PROCESSING\r\n\r\n: PROCESSING\r\n\r\ndata:\n\n")
        await exchange.say("", reasoning_content="hm")
        await exchange.say("Hi")
        await exchange.finish()

    async with scripted(script) as server:
        assert await whole(server.url) == Piece("Hi", "hm", "stop")


async def test_an_answer_in_one_document_is_taken_too() -> None:
    """Some servers ignore `stream`."""

    async def script(exchange: Exchange) -> None:
        message = {"content": "Hi", "reasoning_content": "hm"}
        await exchange.answer(200, {"choices": [{"message": message, "finish_reason": "stop"}]})

    async with scripted(script) as server:
        assert await pieces(server.url) == [Piece("Hi", "hm", "stop")]


async def test_an_end_mark_without_a_finish_reason_is_an_end() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("Hi")
        await exchange.chunk(b"data: [DONE]")
        await exchange.chunk(b"")

    async with scripted(script) as server:
        assert await pieces(server.url) == [Piece("Hi")]


async def test_after_the_finish_reason_nothing_can_spoil_the_answer() -> None:
    """The end mark is missing, but all of it was said."""

    async def silent(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})
        await exchange.event({"choices": [], "usage": {"total_tokens": 3}})
        await exchange.hold()

    async with scripted(silent) as server, asyncio.timeout(SOON_S):
        told = await whole(server.url, limits=Limits(tail=0.1))
    assert told == Piece("Hi", finish_reason="stop", usage={"total_tokens": 3})


async def test_the_end_of_the_body_is_not_the_end_of_the_answer() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("Hi")
        await exchange.chunk(b"")

    assert (await failure(script)).reason == "the stream ended before the answer did"


async def test_a_stream_that_is_cut_in_the_middle_of_a_chunk_has_failed() -> None:
    assert (await failure(cuts_after("Hi"))).reason == "the connection was cut"


async def test_a_server_that_hangs_up_has_failed() -> None:
    assert (await failure(hangs_up)).reason == "the connection was cut"


async def test_silence_before_the_first_word_ends() -> None:
    failed = await failure(stays_silent, limits=SHORT)
    assert (failed.reason, failed.blame) == ("it said nothing within 0.3 s", "provider")


@pytest.mark.parametrize("filler", [b": wait\n\n", b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'])
async def test_what_says_nothing_is_no_first_word(filler: bytes) -> None:
    """A queue that only sends keep-alives would hold the user for ever."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.chunk(filler)
            await asyncio.sleep(0)

    assert (await failure(script, limits=SHORT)).reason == "it said nothing within 0.3 s"


async def test_silence_between_two_words_ends() -> None:
    failed = await failure(stalls_after("Hi"), limits=Limits(stall=0.2))
    assert failed.reason == "it fell silent for 0.2 s"


async def test_the_time_that_the_reader_takes_is_not_counted_as_silence() -> None:
    """Back-pressure is not the provider's fault."""
    limits = Limits(stall=0.2)
    async with scripted(says("one", "two", "three")) as server, opened(limits) as endpoint:
        heard = []
        async with aclosing(stream(endpoint, Provider("test", server.url, "m"))) as told:
            async for piece in told:
                heard.append(piece.text)
                if piece.text == "one":
                    await asyncio.sleep(limits.stall * 2)  # the slow reader that this is about
    assert "".join(heard) == "onetwothree"


async def test_the_callers_deadline_ends_it_and_blames_nobody() -> None:
    failed = await failure(stays_silent, seconds=0.2)
    assert failed.blame == "nobody"
    assert "the caller's time was up" in failed.reason


async def test_an_endless_answer_is_cut() -> None:
    failed = await failure(talks_for_ever, limits=Limits(body=100_000))
    assert failed.reason == "it sent more than 100000 bytes"


async def test_an_endless_line_is_cut() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.chunk(b"x" * 65_536)

    assert (await failure(script)).reason == "it sent an event of more than 262144 bytes"


@pytest.mark.parametrize("garbage", ["{", '{"choices": 3}', "null"])
async def test_a_malformed_event_is_a_failure(garbage: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.event(garbage)
        await exchange.hold()

    assert (await failure(script)).blame == "provider"


async def test_a_page_instead_of_a_stream_is_a_matter_of_the_setup() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(200, b"<html>Log in to the hotel</html>", "text/html; charset=utf-8")

    failed = await failure(script)
    assert (failed.reason, failed.blame) == ("it answered text/html instead of a stream", "setup")


async def test_a_compressed_body_is_refused() -> None:
    """Nobody asked for it, and its bound would be the bound of what it unpacks to."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(Content_Encoding="gzip")
        await exchange.hold()

    assert "compressed" in (await failure(script)).reason


async def test_something_that_is_no_http_is_a_failure() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        await exchange.hold()

    assert (await failure(script)).reason.startswith("it does not speak HTTP")


async def test_an_error_brings_its_words_without_the_key() -> None:
    failed = await failure(refuses(401, "wrong key abc-123"), key="abc-123")
    assert (failed.blame, failed.said) == ("setup", "wrong key ***")


async def test_an_error_whose_body_never_ends_is_told_soon() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(500, "application/json")
        await exchange.hold()

    async with asyncio.timeout(SOON_S):
        assert (await failure(script, limits=Limits(tail=0.1))).reason == "HTTP 500"


async def test_too_many_requests_bring_their_rest() -> None:
    failed = await failure(refuses(429, "slow down", Retry_After="17"))
    assert (failed.blame, failed.retry_after) == ("provider", 17.0)


async def test_closing_the_stream_stops_the_provider() -> None:
    """Tokens that nobody reads cost money."""
    async with scripted(stalls_after("Hi")) as server, opened() as endpoint:
        async with aclosing(stream(endpoint, Provider("test", server.url, "m"))) as told:
            async for piece in told:
                if piece.text == "Hi":
                    break
        await asyncio.wait_for(server.asked[0].gone.wait(), 1.0)


async def test_cancelling_the_reader_stops_the_provider() -> None:
    async with scripted(stays_silent) as server:
        reading = asyncio.create_task(pieces(server.url))
        (asked,) = await server.requests(1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(asked.gone.wait(), 1.0)


async def test_models_are_listed() -> None:
    async with scripted(lists("a", "b")) as server, opened() as endpoint:
        until = asyncio.get_running_loop().time() + 30
        provider = Provider("test", server.url, "m", key="sk-1")
        assert await endpoint.models(provider, until) == ["a", "b"]
    assert (server.asked[0].method, server.asked[0].path) == ("GET", "/v1/models")
    assert server.asked[0].headers["authorization"] == "Bearer sk-1"


async def test_a_thousand_small_pieces_arrive_in_order() -> None:
    parts = [f"{n} " for n in range(1_000)]

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for part in parts:
            await exchange.say(part)
        await exchange.finish()

    async with scripted(script) as server:
        told = await pieces(server.url)
    assert "".join(piece.text for piece in told) == "".join(parts)
    assert len(told) <= len(parts)
    assert json.loads(server.asked[0].body)["model"] == "m"
