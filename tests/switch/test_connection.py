"""Where the HTTP client connects to, and where it does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager

import pytest

from actors.switch.asking.endpoint import opened
from actors.switch.asking.failure import ProviderFailed
from actors.switch.asking.patience import Limits
from actors.switch.configured.providers import Provider
from tests.switch.asking import SHORT, failure, pieces, stream
from tests.switch.scripted import (
    Exchange,
    lists,
    refuses,
    says,
    scripted,
)


async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else() -> None:
    async with scripted(says("x")) as elsewhere:
        failed = await failure(refuses(307, Location=f"{elsewhere.url}/chat/completions"), key="sk-1")
        assert elsewhere.asked == []
    assert (failed.blame, "redirects" in failed.reason) == ("setup", True)


async def test_a_redirected_model_list_is_not_followed() -> None:
    async with scripted(lists("a")) as elsewhere, scripted(refuses(302, Location=f"{elsewhere.url}/models")) as server:
        async with opened() as endpoint:
            with pytest.raises(ProviderFailed, match="redirects"):
                await endpoint.models(Provider("test", server.url, "m"), asyncio.get_running_loop().time() + 30)
        assert elsewhere.asked == []


async def test_a_name_that_leads_to_the_metadata_service_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL was checked when it was read; where its name leads may have changed since."""
    there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: there)
    with pytest.raises(ProviderFailed, match=r"no connection: .*metadata address"):
        await pieces("http://innocent.example.org/v1", limits=SHORT)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that some tool has set must not see the key and the conversations."""
    async with scripted(says("x")) as proxy, scripted(says("direct")) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        await pieces(server.url, key="sk-1")
        assert (len(server.asked), len(proxy.asked)) == (1, 0)


async def test_no_cookie_is_kept() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(Set_Cookie="session=1")
        await exchange.say("x")
        await exchange.finish()

    async with scripted(script) as server, opened() as endpoint:
        by_name = server.url.replace("127.0.0.1", "localhost")  # addresses have no cookies anyway
        for _ in range(2):
            async with aclosing(stream(endpoint, Provider("test", by_name, "m"))) as told:
                assert [piece.text async for piece in told if piece.says] == ["x"]
    assert "cookie" not in server.asked[1].headers


async def test_nobody_listening_is_told_at_once() -> None:
    async with scripted(says("x")) as server:
        url = server.url
    with pytest.raises(ProviderFailed, match="no connection: Connection refused"):
        await pieces(url)


async def test_a_name_that_does_not_exist_is_told() -> None:
    with pytest.raises(ProviderFailed, match="no connection: "):
        await pieces("http://nobody.invalid/v1")


async def test_a_connection_that_is_never_accepted_ends() -> None:
    with deaf() as url, pytest.raises(ProviderFailed, match=r"it accepted no connection within 0\.2 s"):
        await pieces(url, limits=Limits(connect=0.2))


@contextmanager
def deaf() -> Iterator[str]:
    """A port whose queue of connections is full: the kernel drops whoever knocks."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        knocking = [socket.socket() for _ in range(4)]
        for one in knocking:
            one.setblocking(False)
            one.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/v1"
        for one in knocking:
            one.close()


async def test_a_server_without_tls_is_a_matter_of_the_setup() -> None:
    """`https` written for `http`."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ProviderFailed, match="no secure connection") as failed:
            await pieces(f"https://127.0.0.1:{port}/v1")
    assert failed.value.blame == "setup"
