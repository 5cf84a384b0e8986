"""What forks goes on when there is no process to be had, or when one has ended too early."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path

import pytest

from bus import warm, zygote
from bus.loading import TREE
from bus.settings import Settings
from bus.start import Start
from bus.zygote import Examined, Zygote
from schemas.errors import Failure

NAME = "switch"


@pytest.fixture
def forking(tmp_path):
    """A zygote that does not run, and the host's end of its socket."""
    host, own = socket.socketpair()
    with host, own:
        host.settimeout(5.0)
        yield Zygote(own, "", Settings(tmp_path), [TREE]), host


def told(host: socket.socket) -> dict:
    return json.loads(host.recv(zygote.LINE_BYTES))


def refused(*_) -> int:
    raise BlockingIOError(errno.EAGAIN, "no process to be had")


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/dev/fd").iterdir()}


@pytest.mark.parametrize("call", ["fork", "pipe"])
def test_without_a_process_or_descriptor_an_actor_is_not_examined_and_nobody_ends(forking, monkeypatch, call):
    """It ended the zygote, with it the host and all that was awake. Without files it is asked for again at the next look."""
    forker, host = forking
    before = descriptors()
    monkeypatch.setattr(zygote.os, call, refused)
    forker._obey({"op": "card", "name": NAME})
    document = told(host)
    assert (document["name"], document["card"]["name"], document["files"]) == (NAME, NAME, [])
    assert "no process to be had" in document["card"]["error"]
    assert (descriptors(), forker.cards) == (before, {})


def test_without_a_process_nobody_is_parked_and_nothing_is_left_open(forking, monkeypatch):
    """It kept a pipe at each try, every five seconds: in the end no wake would have had a descriptor."""
    forker, _ = forking
    before = descriptors()
    monkeypatch.setattr(zygote.os, "fork", refused)
    for _ in range(3):
        forker._try_park()
    forker._forget_warming()
    assert (descriptors(), forker.spare) == (before, 0)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("got", [b"", b'{"card": {"na'])
def test_half_a_card_is_a_faulty_one(forking, got, late):
    """Its process was killed while it sent."""
    forker, host = forking
    read, write = os.pipe()
    os.close(write)
    forker.cards[read] = Examined(NAME, 0, time.time_ns(), bytearray(got), late)
    forker._read_card(read)
    document = told(host)
    assert ("took more than" if late else "ended while it was imported") in document["card"]["error"]
    assert document["files"]


def test_without_a_descriptor_for_its_source_half_a_card_is_one_that_is_asked_for_again(forking, monkeypatch):
    forker, host = forking
    read, write = os.pipe()
    os.close(write)
    forker.cards[read] = Examined(NAME, 0, time.time_ns())
    monkeypatch.setattr(zygote, "faulty", refused)
    forker._read_card(read)
    assert told(host)["files"] == []


@pytest.mark.parametrize("parked", [0, 77])
def test_a_name_for_who_has_died_is_a_death_and_nobody_elses_name(forking, parked):
    """However long ago it died: taken for alive, its end would never have been told."""
    forker, host = forking
    forker.spare, forker.died = parked, -9
    forker._named(42, {"actor": NAME, "run": "r1"})
    assert told(host) == {"op": "exited", "run": "r1", "pid": 42, "code": -9}
    assert (forker.spare, forker.children) == (parked, {})


async def test_why_an_instance_did_not_reach_the_server_is_in_its_own_log(forking, monkeypatch):
    """The host's report of its end points there."""
    forker, _ = forking
    forker.url = "nats://127.0.0.1:9"
    logs: list[Path] = []
    monkeypatch.setattr(zygote, "write_output_to", logs.append)
    start = Start(NAME, id="1", run="r1", revision=1, epoch=1, host="h", record={"actor": NAME})
    with pytest.raises(Failure, match="no NATS server answers"):
        await forker._live(vars(start))
    assert logs == [forker.settings.home / "logs" / f"{NAME}.log"]


@pytest.mark.parametrize("call", ["socket.create_server", "threading.Thread.start"])
async def test_where_nothing_can_be_rehearsed_a_wake_is_slower_and_nobody_ends(tmp_path, monkeypatch, call):
    """Whoever is parked died of it, and the next one five seconds later."""

    def refused(*_) -> None:
        raise {"socket": OSError, "threading": RuntimeError}[call.partition(".")[0]]("none to be had")

    monkeypatch.setattr(call, refused)
    before = descriptors()
    await warm.rehearse(Settings(tmp_path))
    assert descriptors() == before
