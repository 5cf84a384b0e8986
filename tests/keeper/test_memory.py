"""What the keeper has in memory of the log at a time, however long its events are."""

from __future__ import annotations

from itertools import groupby

import pytest

from actors.keeper import compare, watch
from bus.chain import fold
from bus.eventlog import EventLog
from tests.keeper.archive import Archive, sell

LONG = 700_000


@pytest.mark.parametrize("who", [watch, compare], ids=["following", "comparing"])
async def test_a_page_is_folded_before_the_next_is_read(archive: Archive, monkeypatch: pytest.MonkeyPatch, who) -> None:
    """A page has an end by its bytes; 256 events of the largest size would be a quarter of a gigabyte."""
    async with archive.connect() as bus:
        await sell(bus, 4, size=LONG)
    seen: list[str] = []
    page = EventLog.page

    async def read(self, after, batch, **more):
        found = await page(self, after, batch, **more)
        if found:
            seen.append("page")
        return found

    def folded(head, event):
        seen.append("fold")
        return fold(head, event)

    async with archive.checked() as keeper:
        monkeypatch.setattr(EventLog, "page", read)
        monkeypatch.setattr(who, "fold", folded)
        if who is watch:
            with keeper.watch.written():
                keeper.watch.index.forget_after(watch.STREAM, 0)
                keeper.watch.ledger.begin(watch.STREAM, 1, 0)
            await keeper.watch.catch_up()
        else:
            await keeper.verify()
    runs = [len(list(run)) for what, run in groupby(seen) if what == "page"]
    assert seen.count("fold") >= 4
    assert max(runs) == 1, seen
