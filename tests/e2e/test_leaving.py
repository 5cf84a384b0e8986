"""Whoever leaves a chat stops the model that was speaking to him, and nobody else's."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from bus.loading import TREE
from tests.e2e.command import Vx11
from tests.e2e.house import WAIT_S, House
from tests.switch.scripted import Exchange, Server, says, stays_silent

MOON = "please tell me something about the moon"
PIECE = "la "
TRIES = 3
GONE_S = 1.0
"""From a client's leaving until its provider sees the connection closed."""


@asynccontextmanager
async def asking(home: House, *, stream: bool) -> AsyncIterator[aiohttp.ClientSession]:
    """A chat on its way; leaving closes its connection."""
    async with aiohttp.ClientSession(headers={"X-VX11-Token": home.token}) as http:
        body = {"message": MOON, "stream": stream}
        request = asyncio.create_task(http.post(f"{home.door}/operator/api/chat", json=body))
        try:
            yield http
        finally:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)


async def left(server: Server) -> float:
    """Seconds until the provider sees that its last client has gone."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(WAIT_S):
        await server.asked[-1].gone.wait()
    return loop.time() - begun


async def quickly(leave: Callable[[], Awaitable[float]]) -> None:
    """Within GONE_S in one of three tries: the machine that runs the tests may have other things to do."""
    took = [await leave()]
    while min(took) > GONE_S and len(took) < TRIES:
        took.append(await leave())
    assert min(took) <= GONE_S, took


async def sings_for_ever(exchange: Exchange) -> None:
    """Notices by itself that nobody listens."""
    await sings(exchange, PIECE, 10**6)


async def sings(exchange: Exchange, piece: str, times: int) -> None:
    async def sing() -> None:
        for _ in range(times):
            await exchange.say(piece)
            await asyncio.sleep(0.05)
        await exchange.finish()

    await exchange.head()
    tasks = {asyncio.create_task(exchange.hold()), asyncio.create_task(sing())}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()  # a broken connection is the server's to note


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [stays_silent, sings_for_ever])
async def test_a_client_who_leaves_stops_the_provider_within_a_second(home: House, script: object, stream: bool) -> None:
    """Whether the model is still thinking or in the middle of its answer."""
    async with home.model(script) as server:  # type: ignore[arg-type]

        async def leave() -> float:
            before = len(server.asked)
            async with asking(home, stream=stream), asyncio.timeout(WAIT_S):
                await server.requests(before + 1)
            return await left(server)

        await quickly(leave)


@pytest.mark.parametrize("through", ["the bus", "the door"])
async def test_ctrl_c_stops_the_provider_within_a_second(home: House, through: str) -> None:
    door = {"VX11_URL": home.door, "VX11_TOKEN": home.token} if through == "the door" else {}
    command = [sys.executable, "-m", "gateway.cli", "chat", MOON]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "env": Vx11(home, **door).environ}
    async with home.model(sings_for_ever) as server:

        async def leave() -> float:
            child = await asyncio.create_subprocess_exec(*command, cwd=TREE, **options)
            try:
                assert child.stdout is not None
                assert await child.stdout.readexactly(len(PIECE)) == PIECE.encode()
                child.send_signal(signal.SIGINT)
                return await left(server)
            finally:
                if child.returncode is None:
                    child.kill()
                await child.wait()

        await quickly(leave)


async def test_whoever_stays_hears_his_own_answer_to_its_end_while_others_leave(home: House) -> None:
    """Twenty at a time, streamed and whole; every other one leaves in the middle."""

    async def sings_the_number(exchange: Exchange) -> None:
        await sings(exchange, exchange.asked.document["messages"][-1]["content"][-2:] + " ", 20)

    async with home.model(sings_the_number) as server, aiohttp.ClientSession(headers={"X-VX11-Token": home.token}) as http:

        async def ask(number: int) -> str:
            body = {"message": f"{MOON} {number}", "stream": number % 4 < 2}
            async with http.post(f"{home.door}/operator/api/chat", json=body) as answer:
                return await answer.text()

        asked = {number: asyncio.create_task(ask(number)) for number in range(10, 30)}
        async with asyncio.timeout(WAIT_S):
            await server.requests(len(asked))
            stay = [asked[number] for number in asked if number % 2]
            for number, request in asked.items():
                if number % 2 == 0:
                    request.cancel()
            heard = await asyncio.gather(*stay)
            for one in server.asked:
                if int(one.document["messages"][-1]["content"][-2:]) % 2 == 0:
                    await one.gone.wait()
    for number, text in zip((n for n in asked if n % 2), heard, strict=True):
        assert f"{number} " * 20 in text
        assert not any(f"{other} " in text for other in asked if other != number)


async def test_a_chat_does_not_wait_for_a_madre_who_does_not_answer(home: House) -> None:
    """Whether a message is hers is asked for a second at most."""
    async with home.model(says("Grey.")):
        await home.chat(MOON)  # both are awake
        with home.frozen(home.pid("madre")):
            said = (await home.chat(MOON)).json
    assert (said["response"], said["status"]) == ("Grey.", "ok")


async def test_who_names_the_request_finds_its_answer_later(home: House) -> None:
    """With an Idempotency-Key the client says that it comes again: nothing is thrown away when its line breaks."""
    go = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        tasks = {asyncio.create_task(exchange.hold()), asyncio.create_task(go.wait())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not exchange.asked.gone.is_set():
            await says("Here it is.")(exchange)

    key = {"Idempotency-Key": "asked-once"}
    async with home.model(waits) as server:
        async with aiohttp.ClientSession(headers={"X-VX11-Token": home.token, **key}) as http:
            first = asyncio.create_task(http.post(f"{home.door}/operator/api/chat", json={"message": MOON}))
            async with asyncio.timeout(WAIT_S):
                await server.requests(1)
            first.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.asked[-1].gone.wait(), GONE_S * 2)
        again = asyncio.create_task(home.chat(MOON, headers=key))
        go.set()
        answer = await again
        assert (answer.json["response"], len(server.asked)) == ("Here it is.", 1)
