"""Every acknowledged event is there, once, whatever becomes of the bus server meanwhile."""

from __future__ import annotations

import os

import pytest

from bus import commit
from bus.streams import DUPLICATES_S
from gateway.torture.system import scratch
from tests.log.storm import LOST, Size, Storm, journal_of

LONG = bool(os.environ.get("VX11_LONG_LOG"))
SHORT_SIZE = Size(events=4_000, kills=2, window_s=0.3, pause_s=1.5)
SHORT_TRY_S = 0.5
LONG_SIZE = Size(events=250_000, kills=5, window_s=DUPLICATES_S, pause_s=DUPLICATES_S + 10)
RESUME_S = 2.0 if LONG else 5.0
"""For the consumer, once the server is up again; a busy machine is no fault."""


@pytest.mark.timeout(900 if LONG else 60)
async def test_every_acknowledged_event_is_there_once(tmp_path, pytestconfig, monkeypatch):
    """The server is killed under load, and once stands still for longer than it remembers ids, before its answers are heard."""
    size = LONG_SIZE if LONG else SHORT_SIZE
    journal = tmp_path / "journal"
    with scratch(tmp_path / "home", services="madre,keeper") as system:
        storm = Storm(system, journal, size)
        monkeypatch.setattr(commit, "_hear", storm.hear)
        if not LONG:
            monkeypatch.setattr(commit, "TRY_S", SHORT_TRY_S)
        story = await storm.run()
    tried, acknowledged = journal_of(journal)
    assert len(tried) == len(acknowledged) == size.events
    assert [id_ for id_, times in story.stored.items() if times != 1] == []
    assert story.at == acknowledged
    assert set(story.handled) == set(acknowledged)
    assert story.lost >= LOST
    assert len(story.resumed_s) == size.kills + 1
    assert max(story.resumed_s) < RESUME_S
    assert story.verified.whole, story.verified
    assert story.verified.checked >= size.events
    if LONG:
        pytestconfig.get_terminal_writer().line(f"\n{told(story)}")


def told(story) -> str:
    again = sum(story.handled.values()) - len(story.handled)
    resumed = ", ".join(f"{one:.2f}" for one in story.resumed_s)
    return (
        f"{len(story.stored)} events in {story.seconds:.1f} s, {story.unknown} tries with an unknown outcome, "
        f"{again} handled again; consumers resumed after {resumed} s"
    )
