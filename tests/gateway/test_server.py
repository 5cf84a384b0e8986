"""The sockets: what is too slow, too much, too long or no HTTP, and how the gateway stops. Raw bytes throughout."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from contextlib import AsyncExitStack

import pytest

from bus.cache import open_cache
from bus.settings import Settings
from gateway.http import server
from gateway.http.app import make_parts
from gateway.http.limits import Connections
from gateway.http.settings import HttpSettings, Misconfigured
from gateway.tokens import TokenFile
from tests.gateway.scripted import Raw, ScriptedBus, ScriptedLog

WAKE = "vx11.madre.wake"
MOVED = {"service": "switch", "from": "dormant", "to": "active", "elapsed_ms": 9.0}
JSON = "Content-Type: application/json\r\n"


def request(link, head: str = "", body: bytes = b"", *, path: str = "/madre/power/service/switch/wake", token=True) -> bytes:
    own = f"X-VX11-Token: {link.token}\r\n" if token else ""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{own}{head}\r\n".encode() + body


def parsed(raw: bytes) -> tuple[int, dict]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


async def answer_to(link, data: bytes) -> tuple[int, dict]:
    async with Raw.open(link.bound.public.port, data) as raw:
        head = await raw.head()
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length
        return int(head.split()[1]), json.loads(await raw.reader.readexactly(int(length[1])))


async def closed_after(link, data: bytes) -> float:
    """Seconds until the gateway closed a connection on which this was all that came."""
    began = time.monotonic()
    async with Raw.open(link.bound.public.port, data) as raw:
        await raw.rest()
        return time.monotonic() - began


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_slow_head_is_closed(open_link, sent):
    """aiohttp itself waits for ever."""
    async with open_link(header_s=0.2) as link:
        assert 0.15 < await closed_after(link, sent) < 2.0


async def test_the_clock_runs_again_for_the_next_head(open_link):
    begun = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he"
    async with open_link(header_s=0.2) as link, Raw.open(link.bound.public.port, begun) as raw:
        assert (await raw.head()).startswith(b"HTTP/1.1 200")
        await raw.send(b"al")
        began = time.monotonic()
        await raw.rest()
        assert time.monotonic() - began < 2.0


async def test_a_connection_that_is_kept_may_be_idle_for_longer_than_a_head_may_take(open_link):
    hello = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    async with open_link(header_s=0.05) as link, Raw.open(link.bound.public.port, hello) as raw:
        assert (await raw.head()).startswith(b"HTTP/1.1 200")
        assert await raw.reader.readexactly(15) == b'{"status":"ok"}'
        await closed_after(link, b"GET")  # the clock of one that came later has run down
        await raw.send(hello)
        assert (await raw.head()).startswith(b"HTTP/1.1 200")


async def test_a_long_answer_is_not_cut_by_the_clock_of_the_head(open_link, bus):
    bus.answers[WAKE] = waits = asyncio.Event()
    async with open_link(header_s=0.05) as link:
        waiting = asyncio.create_task(link.post("/madre/power/service/switch/wake"))
        await closed_after(link, b"GET")  # one whose clock began later has ended meanwhile
        waits.set()
        assert (await waiting).status == 200


async def test_a_slow_body_is_refused_and_its_connection_closed(open_link):
    async with open_link(body_s=0.2) as link:
        began = time.monotonic()
        async with Raw.open(link.bound.public.port, request(link, "Content-Length: 100\r\n" + JSON, b'{"reason"')) as raw:
            status, said = parsed(await raw.rest())
            assert (status, said["error"], said["field"]) == (400, "invalid", "body")
            assert time.monotonic() - began < 4.0
            assert link.bus.asked == []


@pytest.mark.parametrize(
    "head",
    ["Content-Length: 2000000\r\n", "Transfer-Encoding: chunked\r\n"],
    ids=["announced", "chunked"],
)
async def test_a_body_that_is_too_long_is_413(link, head):
    body = b"" if "Length" in head else b"100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n"
    async with Raw.open(link.bound.public.port, request(link, head + JSON, body)) as raw:
        assert (await raw.head()).startswith(b"HTTP/1.1 413")


async def test_a_compressed_body_is_415(link):
    """However small it is, what it would become is not known."""
    for coding in ("gzip", "deflate", "br", "zstd"):
        status, said = await answer_to(link, request(link, f"Content-Encoding: {coding}\r\nContent-Length: 2\r\n{JSON}", b"{}"))
        assert (status, said["error"]) == (415, "unsupported_media")
    assert link.bus.asked == []


async def test_a_body_that_is_no_json_by_its_own_word_is_415(link):
    status, said = await answer_to(link, request(link, "Content-Type: text/xml\r\nContent-Length: 4\r\n", b"<a/>"))
    assert (status, said["error"]) == (415, "unsupported_media")


@pytest.mark.parametrize(
    "data",
    [
        b"POST /call/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /call/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /call/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /call/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 9_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    ],
    ids=[
        "length and chunked",
        "two lengths",
        "negative length",
        "no chunk size",
        "bare line feeds",
        "space in a name",
        "folded header",
        "TLS",
        "long header",
        "many headers",
    ],
)
async def test_what_is_ambiguous_or_no_http_is_400_in_the_one_shape(link, data):
    """A second reading of the same bytes, by a proxy in front, must not be possible."""
    async with Raw.open(link.bound.public.port, data) as raw:
        status, said = parsed(await raw.rest())
        assert (status, said["error"], said["status_code"]) == (400, "invalid", 400)
        assert link.bus.asked == []


async def test_two_tokens_that_differ_are_400(link):
    """aiohttp hands over the first of two headers without a word."""
    status, said = await answer_to(link, request(link, "X-VX11-Token: another\r\nContent-Length: 0\r\n"))
    assert (status, said["error"]) == (400, "invalid")


async def test_a_client_that_waits_for_continue_is_told_to(link):
    link.bus.answers[WAKE] = MOVED
    async with Raw.open(link.bound.public.port, request(link, f"Expect: 100-continue\r\nContent-Length: 2\r\n{JSON}")) as raw:
        assert await raw.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(b"{}")
        assert (await raw.head()).startswith(b"HTTP/1.1 200")


async def test_pipelined_requests_are_answered_in_order(link):
    both = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with Raw.open(link.bound.public.port, both) as raw:
        data = await raw.rest()
        assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"404"]


async def test_more_connections_than_there_are_places_are_turned_away(open_link):
    hello = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    async with open_link(connections=2) as link:
        port = link.bound.public.port
        async with Raw.open(port, hello) as first, Raw.open(port, hello) as second:
            assert (await first.head()).startswith(b"HTTP/1.1 200")
            assert (await second.head()).startswith(b"HTTP/1.1 200")
            async with Raw.open(port) as third:
                assert (await third.rest()).startswith(b"HTTP/1.1 429 ")
        while link.parts.connections.total:
            await asyncio.sleep(0.001)
        assert (await link.get("/health")).status == 200


def test_on_its_own_loop_the_gateway_turns_away_what_is_too_much(tmp_path):
    """uvloop's transports are none of asyncio's classes: there the third connection was left open, without any clock."""

    async def scenario() -> None:
        async with open_cache("redis://127.0.0.1:1/0") as cache, AsyncExitStack() as stack:
            parts = parts_of(tmp_path, ScriptedBus(), cache, connections=2)
            bound = await stack.enter_async_context(server.serving(parts))
            first, second, third = [await stack.enter_async_context(Raw.open(bound.public.port)) for _ in range(3)]
            assert (await third.rest()).startswith(b"HTTP/1.1 429 ")
            assert not first.reader.at_eof()
            assert not second.reader.at_eof()

    with asyncio.Runner(loop_factory=server.new_loop) as runner:
        runner.run(scenario())


async def test_who_asks_much_and_takes_nothing_is_let_go(open_link):
    """Else a handful of such clients shuts the door."""
    async with open_link(write_s=0.1) as link:
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", link.bound.public.port, limit=1_024)
        writer.write(asked * 200)
        while not link.parts.connections.total:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(20):
            while link.parts.connections.total:
                await asyncio.sleep(0.01)
        writer.transport.abort()
        assert not reader.at_eof()


async def test_an_old_client_is_told_of_no_continuation(link):
    """RFC 9110 10.1.1: HTTP/1.0 knows no 100."""
    old = b"GET /health HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"
    async with Raw.open(link.bound.public.port, old) as raw:
        assert (await raw.rest()).startswith(b"HTTP/1.0 200 ")


async def test_a_path_is_taken_letter_by_letter(link):
    assert (await link.get("/openapi-json")).status == 404


def test_one_address_may_have_so_many_connections_and_loopback_more():
    places = Connections(10, 2, exempt=frozenset({"10.0.0.9"}))
    assert [places.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    places.leave("192.0.2.1")
    assert places.enter("192.0.2.1")
    assert all(places.enter(near) for near in ("127.0.0.1", "127.0.0.1", "::1", "127.0.0.1", "10.0.0.9", "10.0.0.9", "10.0.0.9"))
    assert places.total == 9
    assert [places.enter("192.0.2.2") for _ in range(2)] == [True, False]


async def test_a_token_may_ask_so_often(open_link):
    async with open_link(rate=5.0, burst=3.0) as link:
        statuses = [(await link.get("/api/map")).status for _ in range(3)]
        fourth = await link.get("/api/map")
        other = await link.get("/api/map", token=link.new_token("read"))
    assert statuses == [200, 200, 200]
    assert (fourth.status, fourth.json["error"], fourth.headers["Retry-After"]) == (429, "busy", "1")
    assert other.status == 200


async def test_so_many_requests_are_under_way_at_a_time(open_link, bus):
    waits = asyncio.Event()
    bus.answers[WAKE] = waits
    async with open_link(in_flight=2) as link:
        first = [asyncio.create_task(link.post("/madre/power/service/switch/wake")) for _ in range(2)]
        while link.parts.places.taken < 2:
            await asyncio.sleep(0.001)
        third = await link.post("/madre/power/service/switch/wake")
        waits.set()
        assert [(await one).status for one in first] == [200, 200]
        assert (third.status, third.json["error"], third.headers["Retry-After"]) == (429, "busy", "1")
        assert link.parts.places.taken == 0


def parts_of(tmp_path, bus, cache, **settings):
    told = {"home": tmp_path, "bind": "127.0.0.1:0", "control_bind": "off", "stop_s": 2.0} | settings
    return make_parts(bus, cache, ScriptedLog(), HttpSettings(**told))


def wake(token: str) -> bytes:
    path = "/madre/power/service/switch/wake"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nX-VX11-Token: {token}\r\nContent-Length: 0\r\n\r\n".encode()


async def test_a_stop_takes_nothing_new_and_lets_what_is_under_way_finish(tmp_path, bus, cache):
    bus.answers[WAKE] = waits = asyncio.Event()
    token = TokenFile(tmp_path).new()[1]
    stop, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.run(parts_of(tmp_path, bus, cache), stop, ready=told.set_result))
    port = (await told).public.port
    async with Raw.open(port, wake(token)) as raw, Raw.open(port) as idle:
        while not bus.asked:
            await asyncio.sleep(0.001)
        stop.set()
        while not await refused(port):
            await asyncio.sleep(0.001)
        waits.set()
        answer = await raw.rest()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        assert await idle.rest() == b""
    await running


async def test_what_does_not_finish_in_time_is_cut_off_and_told_so(tmp_path, bus, cache):
    bus.answers[WAKE] = asyncio.Event()
    token = TokenFile(tmp_path).new()[1]
    stop, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    parts = parts_of(tmp_path, bus, cache, stop_s=0.1)
    running = asyncio.create_task(server.run(parts, stop, ready=told.set_result))
    async with Raw.open((await told).public.port, wake(token)) as raw:
        while not bus.asked:
            await asyncio.sleep(0.001)
        stop.set()
        status, said = parsed(await raw.rest())
    assert (status, said["error"]) == (499, "cancelled")
    await running


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return True
    writer.close()
    return False


async def test_a_port_that_nobody_chose_may_be_another_one_and_a_chosen_one_not(tmp_path, bus, cache):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        async with server.serving(parts_of(tmp_path, bus, cache, bind=bind)) as bound:
            assert bound.public.port != taken.getsockname()[1]
        chosen = parts_of(tmp_path, bus, cache, bind=bind, given=frozenset({"VX11_HTTP_BIND"}))
        with pytest.raises(Misconfigured, match="cannot listen"):
            async with server.serving(chosen):
                pass


def test_the_first_start_makes_a_token_unless_one_was_brought(tmp_path):
    assert server.first_token(HttpSettings.read(Settings(tmp_path / "b", {"VX11_TOKEN": "mine"}))) == ""
    assert server.first_token(HttpSettings.read(Settings(tmp_path / "c", {"VX11_AUTH_MODE": "off"}))) == ""
    text = server.first_token(HttpSettings.read(Settings(tmp_path / "a", {})))
    assert (tmp_path / "a" / "tokens.env").read_text() == f"VX11_TOKEN={text}\n"
    assert server.first_token(HttpSettings.read(Settings(tmp_path / "a", {}))) == ""


def test_the_gateway_runs_on_uvloop(tmp_path):
    settings = HttpSettings(home=tmp_path, bind="127.0.0.1:0", control_bind="127.0.0.1:0")
    hello = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async def looked() -> bytes:
        parts = make_parts(ScriptedBus(), ScriptedBus(), ScriptedLog(), settings)
        async with server.serving(parts) as bound, Raw.open(bound.public.port, hello) as raw:
            return await raw.rest()

    with asyncio.Runner(loop_factory=server.new_loop) as runner:
        assert type(runner.get_loop()).__module__ == "uvloop"
        assert runner.run(looked()).startswith(b"HTTP/1.1 200")
