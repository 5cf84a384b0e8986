"""A log on a server of its own, for one test."""

from __future__ import annotations

import signal

import pytest

from bus.nats_server import NatsServer
from bus.settings import Settings
from tests.keeper.archive import Archive


@pytest.fixture
async def archive(tmp_path):
    server = NatsServer(Settings(tmp_path), on_orphan=signal.SIGKILL)
    server.start()
    made = Archive(server)
    await made.make_streams()
    try:
        yield made
    finally:
        server.stop()
