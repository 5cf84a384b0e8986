"""A connection that is opened eagerly, over TLS, to a stranger, or to a server that falls silent."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.bus.wires import count_into, freeze, opened, thaw


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


async def test_a_stranger_in_the_servers_place_is_named():
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Failure, match="no NATS server") as failed:
            await Wire().open(f"nats://127.0.0.1:{port}", user="madre", seed=None, name="test")
    assert failed.value.code == "unavailable"


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "nats://", "http://127.0.0.1:1"])
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
