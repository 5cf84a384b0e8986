"""`vx11 log` as a person types it, on a running house, and the file that it writes."""

from __future__ import annotations

import asyncio
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.chain import genesis
from bus.client import Bus
from bus.eventlog import EventLog
from gateway.cli import log_file
from gateway.torture.system import scratch
from schemas.errors import Failure
from schemas.keeper import GetLog
from tests.e2e.command import Vx11
from tests.keeper.archive import SOLD, sell, until_true
from tests.keeper.test_chain import EVENT

BODIES = (b"{}", b"", b"\xff\x00\xfe", "ñandú".encode())


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    home = tmp_path_factory.mktemp("command") / "home"
    with scratch(home, services="madre,keeper") as made:
        asyncio.run(fill(made))
        yield made


@pytest.fixture(scope="module")
def exported(system, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "log.jsonl"
    said = Vx11(system.home)("log", "export", str(path))
    assert "as the keeper has them" in said.err
    return path


async def fill(system) -> None:
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="test") as bus:
        for body in BODIES:
            await bus.publish_raw(SOLD, body, headers={"correlation_id": "conversation-1"})
        last = (await sell(bus, 150))[-1]

        async def whole() -> bool:
            state = await bus.request(GetLog())
            return state.state == "whole" and state.head.sequence >= last

        await until_true(whole)


def test_status_and_verify_say_that_it_is_whole(system):
    vx11 = Vx11(system.home)
    assert vx11("log", "status").startswith("the log is whole")
    said = vx11("log", "verify", "--json").json
    assert (said["whole"], said["checked"] > 150) == (True, True)
    assert any("100 ms" in one for one in said["undetectable"])


def test_an_export_imported_into_an_empty_home_is_the_same_log(exported, tmp_path):
    """Same sequences, subjects, headers and bodies; a running house vouches for it from then on."""
    vx11 = Vx11(tmp_path / "other")
    assert "each was read again" in vx11("log", "import", str(exported))
    assert vx11.run("log", "import", str(exported)).code == 73, "a home with a log is not written over"
    with scratch(tmp_path / "other", services="madre,keeper") as other:
        asyncio.run(compare(other, exported))


async def compare(other, exported) -> None:
    with exported.open() as lines:
        wanted = list(log_file.read(lines))
    async with Bus.connect(other.url, user="client", seed=other.seed("client"), name="test") as bus:
        found = await EventLog(bus).read(wanted[0].sequence - 1, len(wanted))
        assert [(one.sequence, one.subject, one.body) for one in found] == [(w.sequence, w.subject, w.body) for w in wanted]
        assert all(w.headers.items() <= one.headers.items() for w, one in zip(wanted, found, strict=True))

        async def whole() -> bool:
            return (await bus.request(GetLog())).state == "whole"

        await until_true(whole)


def test_an_import_into_a_stream_of_its_own_disturbs_nobody(system, exported):
    vx11 = Vx11(system.home)
    vx11("log", "import", str(exported), "--stream", "copy")
    assert vx11.run("log", "import", str(exported), "--stream", "copy").code == 73
    assert vx11.run("log", "import", str(exported), "--stream", "VX11_EVENTS").code == 65
    assert vx11.run("log", "import", str(exported)).code == 73, "the house runs"
    assert vx11("log", "verify").startswith("whole")


def test_a_changed_or_cut_file_is_refused_before_anything_is_made(exported, tmp_path):
    lines = exported.read_text().splitlines(keepends=True)
    for name, text in {
        "changed": "".join(lines).replace("apple 7 ", "grape 7 "),
        "cut": "".join(lines[:-1]),
    }.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(text)
        ran = Vx11(tmp_path / name).run("log", "import", str(path))
        assert (ran.code, "line" in ran.err) == (65, True), ran.err
        assert not (tmp_path / name).exists()


def test_a_broken_log_is_shown_exported_and_accepted(tmp_path):
    with scratch(tmp_path / "home", services="madre,keeper") as system:
        asyncio.run(fill(system))
        asyncio.run(delete(system, 9))
        vx11 = Vx11(system.home)
        verified = vx11.run("log", "verify")
        assert (verified.code, verified.startswith("broken at 9")) == (1, True)
        status = vx11.run("log", "status")
        assert (status.code, "vx11 log accept" in status.err) == (1, True)
        said = vx11("log", "accept", "--reason", "somebody deleted it", "--by", "ana", "--json").json
        assert (said["state"], said["findings"][0]["accepted_by"]) == ("whole", "ana")
        assert "accepted" in vx11("log", "status")


async def delete(system, sequence: int) -> None:
    async with Bus.connect(system.url, user="madre", seed=system.seed("madre"), name="test") as bus:
        await bus.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", json.dumps({"seq": sequence}).encode())


@given(st.lists(EVENT, max_size=5))
def test_what_is_written_is_read_again_exactly(events):
    out = io.StringIO()
    writer = log_file.Writer(out, genesis("VX11_EVENTS", 0))
    for event in events:
        writer.write(event)
    writer.end()
    assert list(log_file.read(out.getvalue().splitlines())) == events


@settings(max_examples=50)
@given(st.lists(EVENT, min_size=1, max_size=2), st.data())
def test_a_changed_character_is_found_or_says_nothing_else(events, data):
    """Whatever is changed in the file: either an error with its line, or the same events."""
    out = io.StringIO()
    writer = log_file.Writer(out, genesis("VX11_EVENTS", 0))
    for event in events:
        writer.write(event)
    writer.end()
    text = out.getvalue()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from('0a"{}[],:x \n')) + text[at + 1 :]
    code = "invalid"
    try:
        found = list(log_file.read(io.StringIO(changed)))
    except Failure as failure:
        found, code = events, failure.code
    assert (found, code) == (events, "invalid")
