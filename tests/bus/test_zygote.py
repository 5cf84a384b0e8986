"""What forks goes on when there is no process to be had, or when one has ended too early."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path

import pytest

from bus import zygote
from bus.loading import TREE
from bus.settings import Settings
from bus.zygote import Examined, Zygote

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
