"""One model in memory at a time, among processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from bus.exclusive import GIVE_WAY_S, Holder, Lease, holder
from bus.loading import TREE
from schemas.errors import Failure
from schemas.models import ModelMemoryWanted

OTHER = """
import asyncio, sys
from pathlib import Path
from bus.exclusive import Lease
async def main():
    lease = Lease(Path(sys.argv[1]), "the other", print)
    await lease.take(asyncio.get_running_loop().time() + 10, "its model")
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lease until its stdin closes."""
    words = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(words, cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def told():
    return []


@pytest.fixture
def lease(tmp_path, told):
    lease = Lease(tmp_path, "me", told.append)
    yield lease
    lease.release()


def soon(seconds: float = 10.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_who_has_it_is_seen_without_taking_it(tmp_path, lease):
    assert holder(tmp_path) is None
    await lease.take(soon(), "mine")
    assert holder(tmp_path) == Holder("me", "mine")
    lease.release()
    assert holder(tmp_path) is None


async def test_a_waiter_says_so_and_is_refused_in_time_with_the_name_of_the_holder(lease, other, told):
    with pytest.raises(Failure, match="held by the other") as refused:
        await lease.take(soon(0.2), "mine")
    assert refused.value.code == "busy"
    assert told == [ModelMemoryWanted(who="me")]
    assert not lease.held


async def test_a_waiter_has_it_as_soon_as_the_holder_lets_go(lease, other):
    waiting = asyncio.create_task(lease.take(soon(), "mine"))
    await asyncio.sleep(0)
    assert not lease.held
    other.stdin.close()
    await waiting
    assert lease.held


async def test_a_holder_that_is_killed_holds_nothing(lease, other):
    os.kill(other.pid, signal.SIGKILL)
    await lease.take(soon(), "mine")
    assert lease.held


async def test_a_child_that_was_given_the_descriptor_holds_it_until_it_has_ended(tmp_path, lease, told):
    """The memory is free when the child is gone, not when whoever started it was killed."""
    await lease.take(soon(), "mine")
    words = [sys.executable, "-c", "input()"]
    child = await asyncio.create_subprocess_exec(*words, stdin=subprocess.PIPE, pass_fds=(lease.descriptor,))
    lease.release()
    another = Lease(tmp_path, "another", told.append)
    with pytest.raises(Failure, match="held by"):
        await another.take(soon(0.1), "its")
    await child.communicate(b"\n")
    await another.take(soon(), "its")
    another.release()


async def test_who_gave_way_lets_the_other_go_first(tmp_path, lease, told):
    await lease.take(soon(), "mine")
    another = Lease(tmp_path, "another", told.append)
    waiting = asyncio.create_task(another.take(soon(), "its"))
    await asyncio.sleep(0)
    lease.release(wanted=True)
    again = asyncio.create_task(lease.take(soon(), "mine"))
    await waiting
    assert not again.done()
    another.release()
    await again


async def test_who_gave_way_and_nobody_came_has_it_again_soon(lease):
    await lease.take(soon(), "mine")
    lease.release(wanted=True)
    began = time.monotonic()
    await lease.take(soon(), "mine")
    assert time.monotonic() - began >= GIVE_WAY_S * 0.9


async def test_a_waiter_that_is_cancelled_leaves_nothing_open(lease, other):
    before = psutil.Process().num_fds()
    waiting = asyncio.create_task(lease.take(soon(), "mine"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not lease.held
    assert psutil.Process().num_fds() == before
