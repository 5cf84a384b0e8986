"""The disk is full and free again: nothing is accepted that could be lost, and all goes on without a hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from bus.loading import TREE

TAKES_S = 90.0
NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
"""The disk is a file system of its own that nobody else sees; without root in a user namespace."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("disk")
    command = [*NAMESPACE, sys.executable, "-m", "tests.log.full_disk", str(folder)]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=TAKES_S, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


pytestmark = pytest.mark.skipif(not shutil.which("unshare"), reason="a disk of one's own without a hand: only on Linux")


def test_with_little_room_what_would_have_to_be_stored_is_refused_and_is_told_what_to_do(seen):
    refusal = seen["refusal"]
    assert refusal["error"] == "storage_full"
    assert "VX11_DISK_RESERVE_MB" in refusal["message"]
    assert "free some space" in refusal["message"]
    assert 0 < refusal["free_bytes"] < refusal["reserve_bytes"]
    assert seen["refused_after_s"] < 10


def test_the_reserve_is_for_vx11_itself_which_reads_wakes_and_stores_on(seen):
    assert seen["reading"] == 200
    assert seen["control"] == [200, 200]
    assert seen["in_reserve"] == "ok"


def test_the_status_says_what_is_wrong(seen):
    assert seen["low"]["status"] == "degraded"
    assert seen["low"]["storage"]["low"]
    assert seen["low"]["storage"]["reason"] == seen["refusal"]["message"] or "MB free" in seen["low"]["storage"]["reason"]
    assert (seen["well"]["status"], seen["well"]["storage"]["low"], seen["well"]["storage"]["reason"]) == ("ok", False, "")


def test_a_full_disk_acknowledges_nothing(seen):
    assert all(outcome != "ok" for outcome in seen["full"][:2])
    assert seen["full"][2] == 507


def test_once_there_is_room_all_goes_on_without_a_hand(seen):
    """Measured: nats-server alone never stores again. It was killed on the full disk, too, and madre with it."""
    assert seen["stored_again_after_s"] < 20
    assert seen["taken_again_after_s"] < 20
    assert (seen["woken"], seen["chat"]) == (200, 200)


def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_there_twice(seen):
    assert seen["acknowledged"] > 200
    assert (seen["lost"], seen["twice"]) == ([], [])


def test_the_chain_of_the_log_is_whole(seen):
    """The keeper's own file was on that disk, too."""
    assert seen["chain"]["whole"], seen["chain"]["finding"]
    assert seen["chain"]["checked"] >= seen["acknowledged"]


def test_it_is_told_in_order_and_the_server_was_started_anew_once(seen):
    assert seen["told"] == ["storage_low", "storage_back", "server_mended"]
