"""The declaration of switch."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from actors.switch import actor as switch
from bus import Bus, Settings
from schemas import switch as contract
from schemas.message import Request, Streamed
from tests.switch.staging import NOBODY, Told


async def test_the_resources_open_and_close_on_their_own(tmp_path: Path) -> None:
    settings, bus = Settings(tmp_path, NOBODY), cast(Bus, Told())
    async with (
        asynccontextmanager(switch.store)(settings) as store,
        asynccontextmanager(switch.local)(settings, bus) as local,
        asynccontextmanager(switch.board)(settings, store, local) as board,
    ):
        assert board.entries() == []


def test_the_verbs_are_those_of_the_contract() -> None:
    said = [one for one in vars(contract).values() if isinstance(one, type) and issubclass(one, Request | Streamed)]
    assert {one.subject for one in said if hasattr(one, "subject")} == {f"vx11.switch.{verb}" for verb in switch.actor.requests}
    assert switch.actor.requests["chat"].streams


def test_declaring_switch_does_not_import_an_http_client() -> None:
    """Whoever reads the cards of all actors pays for none of them."""
    code = "import sys, actors.switch.actor; print({'aiohttp', 'yarl'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.strip() == "set()"
