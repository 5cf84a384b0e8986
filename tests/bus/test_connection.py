"""Opening and closing a connection: without a server, with a wrong key, with a stranger in its place, without permission."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from bus import link
from bus.nats_server import embedded
from bus.users import make_seeds
from bus.wire import Wire
from schemas.errors import Failure
from tests.bus.shop import until
from tests.bus.wires import count_into, opened


@pytest.fixture
async def other(nats_server):
    async with opened(nats_server, "madre") as other:
        yield other


async def test_a_closed_connection_refuses(nats_server):
    async with opened(nats_server, "madre") as wire:
        pass
    with pytest.raises(Failure) as failed:
        wire.send("vx11.shop.sell")
    assert failed.value.code == "unavailable"


async def test_closing_sends_what_waits(nats_server, other):
    got: list[bytes] = []
    await other.hear("vx11.shop.sell", count_into(got))
    await other.barrier()
    async with opened(nats_server, "madre") as wire:
        for n in range(100):
            wire.send("vx11.shop.sell", str(n).encode())
    await other.barrier()
    assert len(got) == 100


async def test_no_server_is_unavailable_with_the_reason(nats_server, monkeypatch):
    monkeypatch.setattr(link, "CONNECT_S", 0.2)
    with pytest.raises(Failure, match="Connect call failed") as failed:
        await Wire().open("nats://127.0.0.1:9", user="madre", seed=nats_server.seed_file("madre"), name="test")
    assert failed.value.code == "unavailable"


async def test_a_seed_that_the_server_does_not_know_is_forbidden(nats_server, tmp_path):
    make_seeds(tmp_path)
    with pytest.raises(Failure) as failed:
        await Wire().open(nats_server.url, user="madre", seed=tmp_path / "madre.nk", name="test")
    assert failed.value.code == "forbidden"


async def test_a_server_that_refuses_us_for_a_while_does_not_end_the_reconnecting(tmp_path):
    """Another server on the port of ours, until ours is back."""
    with embedded(tmp_path / "ours") as server:
        async with opened(server, "madre") as wire:
            server.kill()
            with embedded(tmp_path / "theirs", server.port):
                await until(lambda: "authorization" in str(wire.last_error).lower())
            server.start()
            await wire.barrier()
    gc.collect()


def test_the_connection_does_not_take_aiohttp_along():
    """9 MB in every actor."""
    code = "import sys, bus; assert 'aiohttp' not in sys.modules; import aiohttp; assert aiohttp.ClientSession"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(link.__file__).parents[1])


async def test_what_the_permissions_refuse_is_counted_and_logged(nats_server, caplog):
    """A refused publish is silent in NATS: whoever sent it waits for ever."""
    async with opened(nats_server, "client") as wire:
        wire.send("vx11.inst.switch.run1.chat", b"{}")
        await wire.barrier()
        await until(lambda: wire.denied == 1)
        await wire.hear("vx11.switch.>", print)
        await until(lambda: wire.denied == 2)
    refused = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "vx11.inst.switch.run1.chat" in refused[0]
    assert "vx11.switch.>" in refused[1]


async def test_a_server_that_refuses_us_again_and_again_is_told_of_once(tmp_path, caplog, monkeypatch):
    """It was two lines for each attempt, twenty times a second, in every log there is."""
    tries: list[int] = []
    with embedded(tmp_path / "ours") as server:
        async with opened(server, "madre") as wire:
            connect = wire._connect

            async def counted() -> None:
                tries.append(1)
                await connect()

            monkeypatch.setattr(wire, "_connect", counted)
            server.kill()
            with embedded(tmp_path / "theirs", server.port), caplog.at_level("INFO", "vx11.link"):
                await until(lambda: "authorization" in str(wire.last_error).lower())
                tries.clear()
                await until(lambda: len(tries) > 5)
    assert ["Authorization" in record.getMessage() for record in caplog.records].count(True) == 1
