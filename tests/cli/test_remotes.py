"""The two ways to the system, each against a real server: a bus, and something that speaks as the gateway does."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bus import Bus, Settings
from bus import call as calls
from bus.process import started_at
from gateway.cli.bus_remote import open_bus
from gateway.cli.http_remote import open_http
from gateway.cli.remote import open_remote, request
from schemas.errors import Failure
from schemas.madre import Explain

SUBJECT = "vx11.greeter.greet"


def frame(number: int, **headers: str) -> dict[str, str]:
    return {calls.SEQ: str(number), **headers}


class TestBus:
    @pytest.fixture
    async def settings(self, nats_server) -> AsyncIterator[Settings]:
        """A home that says that it runs, and an actor that answers there."""
        home: Path = nats_server.home
        me = {"pid": os.getpid(), "born": started_at(os.getpid())}
        (home / "run.json").write_text(json.dumps({"nats_url": nats_server.url, "supervisor": me}))
        async with Bus.connect(nats_server.url, user="actor", seed=nats_server.seed_file("actor"), name="t") as bus:

            def greet(msg: Any) -> None:
                asked = json.loads(msg.data)
                if asked.get("name") == "nobody":
                    document = Failure("not_found", "who?", hint="a name").document("c1")
                    head = {calls.ERROR: "who?", calls.ERROR_CODE: "404"}
                    bus.wire.send(msg.reply, json.dumps(document).encode(), headers=head)
                elif msg.headers.get(calls.STREAM) == "1":
                    bus.wire.send(msg.reply, b'{"text": "Hel"}', headers=frame(0))
                    bus.wire.send(msg.reply, b'{"text": "Hello"}', headers=frame(1, **{calls.END: "ok"}))
                else:
                    bus.wire.send(msg.reply, b'{"text": "Hello"}', headers={calls.WAKE_MS: "17"})

            await bus.listen(SUBJECT, greet)
            await bus.wire.barrier()
            yield Settings(home)

    async def test_an_answer_comes_with_how_long_the_wake_took(self, settings) -> None:
        async with open_remote(settings) as remote:
            reply = await remote.ask(SUBJECT, {"name": "Ana"}, timeout=5)
        assert reply.document == {"text": "Hello"}
        assert reply.wake_ms == 17

    async def test_a_failure_keeps_its_code_and_its_details(self, settings) -> None:
        async with open_remote(settings) as remote:
            with pytest.raises(Failure) as failed:
                await remote.ask(SUBJECT, {"name": "nobody"}, timeout=5)
        assert failed.value.code == "not_found"
        assert failed.value.details["hint"] == "a name"

    async def test_pieces_come_before_the_whole(self, settings) -> None:
        async with open_remote(settings) as remote:
            pieces = [(one.document["text"], one.last) async for one in remote.stream(SUBJECT, {}, timeout=5)]
        assert pieces == [("Hel", False), ("Hello", True)]

    async def test_a_key_that_is_missing_is_said(self, settings, tmp_path) -> None:
        home = tmp_path / "bare"
        home.mkdir()
        (home / "run.json").write_text((settings.home / "run.json").read_text())
        with pytest.raises(Failure, match="key of the bus user client"):
            async with open_bus(Settings(home)):
                pass

    async def test_a_server_that_is_gone_is_unavailable(self, settings, tmp_path) -> None:
        home = tmp_path / "gone"
        (home / "nats").mkdir(parents=True)
        (home / "nats" / "client.nk").write_text((settings.home / "nats" / "client.nk").read_text())
        document = json.loads((settings.home / "run.json").read_text())
        (home / "run.json").write_text(json.dumps({**document, "nats_url": f"nats://127.0.0.1:{closed_port()}"}))
        with pytest.raises(Failure) as failed:
            async with open_bus(Settings(home)):
                pass
        assert failed.value.code == "unavailable"


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


TOKEN = "the-token"


async def call(asked: web.Request) -> web.StreamResponse:
    """Speaks as `POST /call/{actor}/{verb}` of the gateway does."""
    if asked.headers.get("X-VX11-Token") != TOKEN:
        document = {"error": "auth_required", "detail": "auth_required", "message": "a token", "status_code": 401}
        return web.json_response(document, status=401)
    body = await asked.json()
    if body.get("how") == "strange":
        return web.Response(status=502, text="<html>bad gateway</html>")
    if "text/event-stream" not in asked.headers["Accept"] or body.get("how") == "whole":
        return web.json_response({"text": "Hello"}, headers={"X-Vx11-Wake-Ms": "17"})
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(asked)
    await stream.write(b': alive\n\nevent: chunk\ndata: {"text": "Hel"}\n\n')
    if body.get("how") == "broken":
        await stream.write(b'event: error\ndata: {"error": "crashed", "message": "cut", "status_code": 502}\n\n')
    elif body.get("how") == "long":
        await stream.write(b'event: reply\ndata: {"text": "' + b"x" * 600_000 + b'"}\n\n')
    elif body.get("how") != "short":
        await stream.write(b'event: reply\ndata: {"text":\ndata: "Hello"}\n\n')
    return stream


class TestHttp:
    @pytest.fixture
    async def url(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/call/greeter/greet", call)
        server = TestServer(app)
        await server.start_server()
        yield f"http://127.0.0.1:{server.port}"
        await server.close()

    async def test_the_environment_chooses_it(self, url) -> None:
        settings = Settings(Path("/nowhere"), {"VX11_URL": f"{url}/", "VX11_TOKEN": TOKEN})
        async with open_remote(settings) as remote:
            reply = await remote.ask(SUBJECT, {}, timeout=5)
        assert (reply.document, reply.wake_ms) == ({"text": "Hello"}, 17)

    async def test_without_a_token_the_gateway_says_so(self, url) -> None:
        async with open_http(url, "") as remote:
            with pytest.raises(Failure) as failed:
                await remote.ask(SUBJECT, {}, timeout=5)
        assert (failed.value.code, failed.value.message, failed.value.details) == ("auth_required", "a token", {})

    @pytest.mark.parametrize(
        ("how", "wanted"),
        [
            ("", [("Hel", False), ("Hello", True)]),
            ("whole", [("Hello", True)]),
            ("long", [("Hel", False), ("x" * 600_000, True)]),
        ],
    )
    async def test_pieces_come_before_the_whole(self, url, how, wanted) -> None:
        async with open_http(url, TOKEN) as remote:
            pieces = [(one.document["text"], one.last) async for one in remote.stream(SUBJECT, {"how": how}, timeout=5)]
        assert pieces == wanted

    @pytest.mark.parametrize(("how", "message"), [("broken", "cut"), ("short", "in the middle")])
    async def test_a_stream_without_its_end_is_crashed(self, url, how, message) -> None:
        async with open_http(url, TOKEN) as remote:
            with pytest.raises(Failure, match=message) as failed:
                async for _ in remote.stream(SUBJECT, {"how": how}, timeout=5):
                    pass
        assert failed.value.code == "crashed"

    async def test_what_is_no_gateway_of_ours_is_said(self, url) -> None:
        async with open_http(url, TOKEN) as remote:
            with pytest.raises(Failure, match="not how a VX11 gateway says it") as failed:
                await remote.ask(SUBJECT, {"how": "strange"}, timeout=5)
        assert failed.value.code == "unavailable"

    async def test_nobody_there_is_unavailable_and_says_what_to_look_at(self) -> None:
        async with open_http(f"http://127.0.0.1:{closed_port()}", TOKEN) as remote:
            with pytest.raises(Failure, match="nothing answers") as failed:
                await request(remote, Explain(name="x"))
        assert failed.value.code == "unavailable"
        assert failed.value.details["next"][0][0] == "echo $VX11_URL"

    async def test_an_address_that_is_none_is_invalid(self) -> None:
        with pytest.raises(Failure, match="no address"):
            async with open_http("localhost:8000", TOKEN):
                pass
