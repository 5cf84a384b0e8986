"""One whole system for each file of these tests, and what must hold of it after any garbage."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.house import House, house

LONG = os.environ.get("VX11_LONG_FUZZ") == "1"
"""Many more examples, and other ones each time; without it the same few."""
CLOCK_S = 1.0
"""For the head and for the body of a request: slow ones are told from honest ones soon."""
TOKEN = "fuzz-" + "0" * 43
"""May do everything. Known in advance, so that a request inside the body of another has a known length."""
KEEPALIVE_S = 3.0
VARIABLES = {
    "VX11_TOKEN": TOKEN,
    "VX11_HTTP_HEADER_S": str(CLOCK_S),
    "VX11_HTTP_BODY_S": str(CLOCK_S),
    "VX11_HTTP_KEEPALIVE_S": str(KEEPALIVE_S),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("vx11"), VARIABLES) as made:
        before = made.system.document()["pids"]
        yield made
        assert made.system.document()["pids"] == before, "a process has died of it"
        for file in sorted((made.home / "logs").iterdir()):
            assert "Traceback" not in file.read_text(errors="replace"), f"somebody was surprised: {file.name}"
