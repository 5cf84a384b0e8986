"""A connection that is opened eagerly, over TLS, to a stranger, or to a server that falls silent."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme

from bus import link
from bus.daemon import LOOPBACK, Daemon, free_port
from bus.nats_server import binary, embedded
from bus.settings import Settings
from bus.users import make_seeds
from bus.wire import Wire
from schemas.errors import Failure
from tests.bus.shop import until
from tests.bus.wires import PATIENCE_S, count_into, freeze, opened, thaw


@contextmanager
def running(home: Path, config: str) -> Iterator[int]:
    """Somebody's own server on a free port, which it yields."""
    conf, port = home / "nats.conf", free_port()
    conf.write_text(f"host: {LOOPBACK}\nport: {port}\n{config}\n")
    server = Daemon([str(binary(Settings(home))), "-c", str(conf)], port, home / "data", [home / "log"], listens, signal.SIGKILL)
    server.start()
    try:
        yield port
    finally:
        server.stop()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


async def test_what_is_sent_before_an_eager_connection_travels_with_the_introduction(nats_server):
    """A wake's claim is one way to the server shorter than it would be behind a welcome."""
    got: list[bytes] = []
    async with opened(nats_server, "madre") as other:
        await other.hear("vx11.shop.sell", count_into(got))
        await other.barrier()
        wire = Wire()
        wire.be("madre")
        wire.send("vx11.shop.sell", b"at once")
        echo = asyncio.create_task(wire.barrier())
        await asyncio.sleep(0)
        seed = nats_server.seed_file("madre")
        await wire.open(nats_server.url, user="madre", seed=seed, name="eager", eager=True)
        wire.send("vx11.shop.sell", b"then")
        await wire.barrier()
        await other.barrier()
        echo.cancel()
        await wire.aclose()
    assert got == [b"at once", b"then"]


async def test_an_eager_connection_that_is_refused_is_closed_for_good(nats_server, tmp_path):
    """Its process has nothing to live for, and says why."""
    make_seeds(tmp_path)
    closed = asyncio.Event()
    wire = Wire()
    wire.on_close.append(closed.set)
    await wire.open(nats_server.url, user="madre", seed=tmp_path / "madre.nk", name="eager", eager=True)
    await asyncio.wait_for(closed.wait(), 5.0)
    assert "authorization" in str(wire.last_error).lower()
    with pytest.raises(Failure, match="no connection"):
        wire.send("vx11.shop.sell")
    await wire.aclose()


async def test_what_is_subscribed_while_an_eager_connection_is_made_is_there(nats_server):
    """Too late for the introduction, and too early for who writes by itself: nobody would have said it."""
    got: list[bytes] = []
    wire = Wire()
    wire.be("madre")

    async def meanwhile() -> None:
        await wire.hear("vx11.shop.sell", count_into(got))
        wire.send("vx11.shop.sell", b"meanwhile")

    task = asyncio.create_task(meanwhile())
    await wire.open(nats_server.url, user="madre", seed=nats_server.seed_file("madre"), name="eager", eager=True)
    await task
    await wire.barrier()
    await wire.aclose()
    assert got == [b"meanwhile"]


@asynccontextmanager
async def speaking(*said: bytes) -> AsyncIterator[int]:
    """Who says that, then reads what it is told until it has a PONG, and hangs up. Yields its port."""

    def speak() -> None:
        with listening, listening.accept()[0] as client:
            client.settimeout(PATIENCE_S)
            for piece in said:
                client.sendall(piece)
                time.sleep(0.02)  # pieces that arrive apart
            while said and b"PONG" not in (told := client.recv(4_096)) and told:
                continue

    listening = socket.create_server((LOOPBACK, 0))
    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "no connection .* no NATS server"),
        ((b'INFO {"max_payload"\r\n',), "no connection .* no NATS server"),
        ((b"INFO 5\r\n",), "no connection .* no NATS server"),
        ((), "hung up"),
    ],
)
async def test_a_stranger_in_the_servers_place_is_named(said, why, eager):
    """The only thing that the log of a wake that failed has to say."""
    async with speaking(*said) as port:
        with pytest.raises(Failure, match=why) as failed:
            await Wire().open(f"nats://127.0.0.1:{port}", user="madre", seed=None, name="test", eager=eager)
    assert failed.value.code == "unavailable"


@pytest.mark.parametrize("eager", [False, True])
async def test_a_greeting_in_pieces_and_a_ping_before_we_are_let_in_are_answered(eager):
    wire = Wire()
    async with speaking(b'INFO {"max', b'_payload": 1000}\r\nPING\r\n', b"PONG\r\n") as port:
        await wire.open(f"nats://127.0.0.1:{port}", user="madre", seed=None, name="test", eager=eager)
        assert wire.max_payload == 1_000
        await until(lambda: not wire.is_connected)  # it has its PONG, and hangs up
    await wire.close()


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:1", "nats://", "http://127.0.0.1:1", "nats://127.0.0.1:first", "127.0.0.1:99999"]
)
async def test_an_address_of_another_kind_is_refused_with_an_example(url):
    with pytest.raises(Failure, match="nats://host:port") as failed:
        await Wire().open(url, user="madre", seed=None, name="test")
    assert failed.value.code == "invalid"


async def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    """It may be frozen, or behind a cable that nobody will plug in again."""
    monkeypatch.setattr(link, "PING_S", 0.05)
    with embedded(tmp_path) as server:
        async with opened(server, "madre") as wire:
            freeze(server.process.pid)
            await until(lambda: not wire.is_connected)
            thaw(server.process.pid)
            await until(lambda: wire.is_connected)
            assert wire.reconnects == 1


@pytest.mark.parametrize(
    ("credentials", "config"), [("ana:s3cret@", 'user: ana, password: "s3cret"'), ("t0ken@", 'token: "t0ken"')]
)
async def test_a_server_of_ones_own_may_want_a_password_or_a_token(tmp_path, credentials, config):
    """In the address, as every NATS client takes it; an NKey that it does not ask for is kept to ourselves."""
    with running(tmp_path, f"authorization {{ {config} }}") as port:
        wire = Wire()
        await wire.open(f"nats://{credentials}127.0.0.1:{port}", user="madre", seed=None, name="test")
        await wire.barrier()
        await wire.aclose()
        with pytest.raises(Failure) as failed:
            await Wire().open(f"nats://127.0.0.1:{port}", user="madre", seed=None, name="test")
    assert failed.value.code == "forbidden"


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_server_that_wants_tls_gets_it_and_a_stranger_with_another_certificate_nothing(
    tmp_path, monkeypatch, scheme, eager
):
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = f"tls {{ cert_file: {json.dumps(str(tmp_path / 'cert.pem'))}, key_file: {json.dumps(str(tmp_path / 'key.pem'))} }}"
    with running(tmp_path, tls) as port:
        with pytest.raises(Failure, match="certificate"):
            await Wire().open(f"{scheme}://127.0.0.1:{port}", user="madre", seed=None, name="test", eager=eager)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        wire = Wire()
        await wire.open(f"{scheme}://127.0.0.1:{port}", user="madre", seed=None, name="test", eager=eager)
        await wire.barrier()
        assert isinstance(wire._line.transport.get_extra_info("ssl_object"), ssl.SSLObject)
        await wire.aclose()
