"""When a host asks for an actor's card; what it does with processes is in `test_zygote_and_host`."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from bus.examine import watched
from bus.host import Host
from bus.settings import Settings


class Deaf:
    """A bus on which everything arrives."""

    async def ask(self, *_, **__) -> None:
        return None


async def test_who_was_away_and_imports_slowly_is_asked_for_once_when_it_is_back(tmp_path):
    """Each look asked again and killed the import that was under way: an actor of some seconds never came back."""
    folder, away = tmp_path / "actors" / "slow", tmp_path / "away"
    folder.mkdir(parents=True)
    (folder / "actor.py").write_text("x = 1\n")
    ours, zygote = socket.socketpair()
    with ours, zygote:
        zygote.setblocking(False)
        host = Host(Deaf(), ours, Settings(tmp_path, {"VX11_ACTORS_PATH": str(tmp_path / "actors")}), name="h")

        def looked() -> int:
            """Look once; how often a card was asked for since the last look."""
            host._look_at("slow", {})
            try:
                return sum(json.loads(line)["op"] == "card" for line in zygote.recv(100_000).splitlines())
            except BlockingIOError:
                return 0

        def heard(*files: str) -> None:
            card = {"name": "slow", "summary": "s"}
            begun = time.time_ns() + 10**9
            told = {"name": "slow", "card": card, "files": files, "begun": begun, "grew": 0, "took": 1.0, "dormant": True}
            host._heard_card(told)

        assert looked() == 1
        heard(*watched("slow", host._roots))
        assert looked() == 0
        folder.rename(away)
        assert looked() == 1
        heard()
        away.rename(folder)
        assert [looked() for _ in range(4)] == [1, 0, 0, 0]
        heard()  # it could not be examined just then
        assert looked() == 1


def closed(read: int) -> bool:
    """Whether nobody has the other end of that pipe."""
    os.set_blocking(read, False)
    try:
        return os.read(read, 1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def parking(tmp_path):
    """A host, and what makes it hear of a parked process; the read end of that one's pipe."""
    ours, zygote = socket.socketpair()
    host, reads = Host(Deaf(), ours, Settings(tmp_path), name="h"), []

    def parked(pid: int, generation: int = 0) -> int:
        read, write = os.pipe()
        reads.append(read)
        host._pipes.append(write)
        host._heard_zygote({"op": "spare", "pid": pid, "generation": generation})
        return read

    with ours, zygote:
        yield host, parked
        host._preload()
    for read in reads:
        os.close(read)


def test_a_parked_process_that_died_unused_leaves_no_descriptor_behind(parking):
    host, parked = parking
    first, second = parked(41), parked(42)
    assert (closed(first), closed(second), host._spare[0]) == (True, False, 42)


def test_a_parked_process_that_knows_what_is_no_longer_on_disk_is_dismissed(parking):
    host, parked = parking
    first, old = parked(41), parked(42, generation=-1)
    assert (closed(first), closed(old), host._spare[0]) == (False, True, 41)


def test_a_parked_process_whose_pipe_did_not_arrive_is_none(parking):
    """There was no descriptor to be had. What the zygote said after it is heard."""
    host, _ = parking
    host._heard_zygote({"op": "spare", "pid": 41, "generation": 0})
    assert host._spare == (0, -1)
