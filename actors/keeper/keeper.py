"""All parts of the keeper on one connection, and what it answers."""

from __future__ import annotations

import asyncio
import logging
import time

from actors.keeper import index, ledger
from actors.keeper.calls import Calls
from actors.keeper.index import Index
from actors.keeper.ledger import Ledger
from actors.keeper.rules import DAY_S, Rules
from actors.keeper.signer import Signer
from actors.keeper.trim import Room, Trimmer, room_in
from actors.keeper.watch import Watch
from bus.client import Bus
from bus.eventlog import STREAM
from bus.settings import Settings
from bus.streams import CALLS
from bus.vault import Vault, derived, key_of, open_vault
from schemas.errors import Failure
from schemas.keeper import Find, Found, LogState, Place, Verified

log = logging.getLogger("vx11.keeper")

AGAIN_S = 1.0
"""Between two attempts to open what is not there yet."""
OPENING_S = 10.0
"""Until then the others may still be starting, too; after it the log is not kept, and that is a fault. Also later on."""
FRESH_S = 1.0
"""A search waits so long at most for the index to reach the end of the streams."""
CALLS_A_TURN = 5_000
"""Call records that are indexed at a time, each `upkeep_s`: 2 % of a core. What comes faster waits for quieter times."""
BOOT_REST = 3.0
"""The comparison after a start works a quarter of the time: others are starting, too."""


class Keeper:
    """`open` until it is closed; verbs that come before it is ready are refused with the reason."""

    def __init__(self, bus: Bus, settings: Settings, rules: Rules | None = None) -> None:
        self._bus = bus
        self._settings = settings
        self._rules = rules or Rules.of(settings)
        self._trouble = Failure("unavailable", "the keeper is starting")
        self._vault: Vault | None = None
        self._watch: Watch | None = None
        self._calls: Calls | None = None
        self._trimmer: Trimmer | None = None
        self._room = Room(1, 0, 0, -1)
        self._verifying = asyncio.Lock()
        self._begun = time.monotonic()

    async def run(self) -> None:
        """Open, and keep the log until cancelled."""
        await self._open()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch.follow())
            group.create_task(self._boot_check())
            group.create_task(self._look_after())

    async def close(self) -> None:
        if self._watch:
            await self._watch.close()
        if self._vault:
            self._vault.close()

    @property
    def watch(self) -> Watch:
        """Raises Failure with the reason why there is none."""
        if self._watch is None:
            raise self._trouble
        return self._watch

    async def find(self, asked: Find) -> Found:
        watch = self.watch
        try:
            async with asyncio.timeout(FRESH_S):
                await watch.catch_up()
                if self._calls:
                    await self._calls.catch_up()
        except (TimeoutError, Failure) as trouble:
            log.info("a search found the index behind the streams: %s", trouble)
        most = asked.limit + 1
        events = watch.index.find(STREAM, asked.correlation_id, most, watch.ledger.trimmed + 1)
        calls = watch.index.find(CALLS, asked.correlation_id, most, self._calls.first if self._calls else 1)
        return Found(
            events=events[: asked.limit],
            calls=calls[: asked.limit],
            more=max(len(events), len(calls)) > asked.limit,
            indexed_events=watch.index.through(STREAM),
            indexed_calls=watch.index.through(CALLS),
        )

    async def state(self) -> LogState:
        """Raises Failure."""
        watch = self.watch
        kept = watch.ledger
        room = await self._look()
        return LogState(
            state="broken" if watch.broken else "whole" if watch.checked else "checking",
            reason=self._reason(),
            genesis=Place(sequence=kept.genesis, hash=kept.genesis_hash.hex()),
            head=Place(sequence=kept.head, hash=kept.head_hash.hex()),
            first_sequence=room.first,
            last_sequence=room.last,
            lag=max(0, room.last - kept.head),
            checkpoint=kept.checkpoint,
            checkpoints=kept.count_checkpoints(),
            trimmed_through=kept.trimmed,
            findings=kept.findings,
            verified_at=kept.verified_at,
            bytes=room.bytes,
            max_bytes=room.max_bytes,
            keep_days=self._rules.keep_s / DAY_S,
            indexed_events=watch.index.through(STREAM),
            indexed_calls=watch.index.through(CALLS),
            undetectable=self._undetectable(room.last),
        )

    async def verify(self) -> Verified:
        """Raises Failure."""
        watch = self.watch
        async with self._verifying:
            begun = time.perf_counter()
            await watch.catch_up()
            outcome = await watch.verify()
            _, last = await watch.log.bounds()
        return Verified(
            whole=outcome.bad is None and watch.broken is None,
            checked=outcome.checked,
            after=outcome.after,
            through=outcome.through,
            took_ms=round((time.perf_counter() - begun) * 1000, 1),
            finding=watch.broken,
            undetectable=self._undetectable(last),
        )

    def health(self) -> dict[str, str]:
        """For the heartbeat: a word, and the reason if it is not `whole`."""
        if self._watch is None:
            late = time.monotonic() - self._begun > OPENING_S
            return {"state": "closed" if late else "opening", "reason": self._trouble.message}
        if self._watch.broken:
            return {"state": "broken", "reason": self._watch.broken.told}
        if self._watch.trouble and time.monotonic() - self._watch.stuck_since > OPENING_S:
            return {"state": "closed", "reason": self._watch.trouble}
        return {"state": "whole" if self._watch.checked else "checking"}

    async def accept(self, reason: str, by: str) -> LogState:
        await self.watch.accept(reason, by)
        return await self.state()

    async def _open(self) -> None:
        """The file and the stream; what is in the way is told to whoever asks, and looked at again."""
        while self._watch is None:
            try:
                self._watch = await self._opened()
            except Failure as failure:
                if str(failure) != str(self._trouble):
                    log.warning("%s", failure)
                self._trouble = failure
                await asyncio.sleep(AGAIN_S)

    async def _opened(self) -> Watch:
        folder = self._settings.home / "keeper"
        path = folder / "keeper.db"
        key = key_of(self._settings, folder / "keeper.key", path)
        if self._vault is None:
            self._vault = open_vault(path, key, ledger.SCHEMA + index.SCHEMA)
        made = Index(self._vault, derived(key, index.PURPOSE))
        watch = Watch(self._bus, self._vault, Ledger(self._vault), made, Signer(key, STREAM), self._rules)
        await watch.open()
        self._calls = Calls(self._bus, watch)
        self._trimmer = Trimmer(self._bus, watch, self._rules)
        return watch

    async def _boot_check(self) -> None:
        """Compare all that is older than this process; whether it worked is seen in the state."""
        while not self.watch.checked and not self.watch.broken:
            try:
                await self.watch.catch_up()
                if not self.watch.broken:
                    await self.watch.verify(rest=BOOT_REST)
            except Failure as failure:
                log.warning("the log could not be compared: %s", failure)
                await asyncio.sleep(AGAIN_S)

    async def _look_after(self) -> None:
        """What is due now and then. A failure is for one round: the next one looks again."""
        trouble = ""
        while True:
            try:
                await self._round()
                trouble = ""
            except Failure as failure:
                if failure.message != trouble:
                    log.warning("the log is not looked after for a moment: %s", failure)
                trouble = failure.message
            await asyncio.sleep(self._rules.upkeep_s)

    async def _round(self) -> None:
        watch = self.watch
        room = await self._look()
        if room.last < watch.ledger.head and not watch.broken:
            watch.doubt()
        if room.last > watch.index.through(STREAM):
            watch.news.set()
        watch.sign_if_due()
        if self._trimmer:
            await self._trimmer.trim(room)
        if self._calls:
            await self._calls.catch_up(CALLS_A_TURN)

    async def _look(self) -> Room:
        self._room = await room_in(self._bus)
        return self._room

    def _reason(self) -> str:
        watch = self.watch
        if watch.broken:
            return watch.broken.told
        return "every event has been compared with the chain" if watch.checked else "not every event has been compared yet"

    def _undetectable(self, last: int) -> list[str]:
        kept, rules = self.watch.ledger, self._rules
        behind = last - kept.head
        made = f"made after {rules.checkpoint_events} events or {rules.checkpoint_s:g} s"
        told = [
            f"anything done to what is not in the chain yet: at most 100 events or 100 ms (now {behind} events)",
            f"an older keeper.db put back while no checkpoint lies between ({made}), or with the stream of the same moment",
            "times changed by less than a microsecond, and headers that begin with Nats-",
            "anything done to VX11_CALLS, VX11_JOBS and VX11_DLQ: only VX11_EVENTS has a chain",
        ]
        if kept.genesis:
            told.insert(0, f"anything done to events up to {kept.genesis}, behind which the chain begins")
        return told
