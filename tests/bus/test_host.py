"""When a host asks for an actor's card; what it does with processes is in `test_zygote_and_host`."""

from __future__ import annotations

import json
import socket
import time

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
