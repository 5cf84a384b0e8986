"""A log to play again: a server of the test's own, madre who fills it, and somebody who plays."""

from __future__ import annotations

import pytest

from bus.nats_server import embedded
from tests.replay.theatre import Theatre, theatre


@pytest.fixture
async def stage(nats_server) -> Theatre:
    """On the server of all tests of the file, with an empty VX11_EVENTS; the player has no more rights than a client."""
    async with theatre(nats_server) as made:
        yield made


@pytest.fixture
async def own_stage(tmp_path) -> Theatre:
    """On a server that the test may kill."""
    with embedded(tmp_path) as server:
        async with theatre(server) as made:
            yield made
