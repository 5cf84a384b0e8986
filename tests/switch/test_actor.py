"""The declaration of switch."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from actors.switch import actor as switch
from actors.switch.board import Board
from bus import Bus, Call, Settings
from tests.switch.staging import NOBODY


async def test_the_resource_opens_and_closes_on_its_own(tmp_path: Path) -> None:
    async with asynccontextmanager(switch.board)(Settings(tmp_path, NOBODY)) as board:
        assert board.entries() == []


def test_the_verbs_are_those_of_the_contract() -> None:
    assert sorted(switch.actor.requests) == ["chat", "list_models", "list_providers"]
    assert switch.actor.requests["chat"].streams
    assert switch.actor.requests["chat"].wants == {"board": Board, "bus": Bus, "call": Call}


def test_declaring_switch_does_not_import_an_http_client() -> None:
    """Whoever reads the cards of all actors pays for none of them."""
    code = "import sys, actors.switch.actor; print({'aiohttp', 'yarl'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.strip() == "set()"
