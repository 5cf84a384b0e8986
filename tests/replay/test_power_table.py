"""The table of who is awake, worked out from the log alone, is the one that madre keeps: on a real system that is struck."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import nats
import psutil

from bus.client import Bus
from bus.eventlog import EventLog
from bus.power_table import PowerTable, power_table
from gateway.torture.system import ACTORS as ECHO
from gateway.torture.system import System, copies, scratch
from schemas.errors import Failure
from schemas.madre import GetActor, Sleep, Wake
from schemas.power import ActorRecord

LONG = os.environ.get("VX11_LONG_LOG") == "1"
MOVES = 400 if LONG else 40
NUMBER = 4
SETTLED_S = 30.0
SAME = ("state", "instance", "owner", "host", "pid")


async def test_the_table_from_the_log_equals_the_records(tmp_path):
    """After wakes, sleeps, refusals, kills of instances and of madre, in a random order."""
    names = copies(tmp_path / "actors", NUMBER)
    folders = f"{tmp_path / 'actors'}{os.pathsep}{ECHO}"
    with scratch(tmp_path / "home", services="madre,host", variables={"VX11_ACTORS_PATH": folders}) as system:
        async with Bus.connect(system.url, user="madre", seed=system.seed("madre"), name="test") as bus:
            dice, marks = random.Random(11), []
            for move in range(MOVES):
                await one_move(system, bus, dice, names)
                if move % (MOVES // 4) == 3:
                    marks.append(await settled(system, bus))
            marks.append(await settled(system, bus))
            for last, records in marks:
                table = await power_table(EventLog(bus), last)
                assert difference(table, records) == {}, f"as it was at sequence {last}"
            assert sum(row.wakes for row in table.rows.values()) > NUMBER
            counted = {name: record.wakes for name, record in records.items() if name in table.rows}
            assert all(table.rows[name].wakes >= wakes for name, wakes in counted.items()), "the log knows of every wake"
            assert table.unread == 0


async def one_move(system: System, bus: Bus, dice: random.Random, names: tuple[str, ...]) -> None:
    name = dice.choice(names)
    kind = dice.choices(("wake", "ask", "sleep", "kill", "madre"), (30, 25, 25, 14, 4))[0]
    refused = ""
    try:
        if kind == "wake":
            await bus.request(Wake(name=name), timeout=10)
        elif kind == "sleep":
            await bus.request(Sleep(name=name), timeout=10)
        elif kind == "ask":
            await bus.ask(f"vx11.{name}.echo_again", b'{"n": 1}', timeout=10, idempotent=True)
        elif kind == "kill":
            strike(system, (await bus.request(GetActor(name=name))).status.pid)
        elif kind == "madre":
            strike(system, int(system.document()["pids"].get("madre", {"pid": 0})["pid"]))
    except Failure as failure:  # it was struck in the middle, or there was nothing to do
        refused = failure.code
    assert refused != "internal"


def strike(system: System, pid: int) -> None:
    if pid and system.owns(pid):
        try:
            psutil.Process(pid).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return


async def settled(system: System, bus: Bus) -> tuple[int, dict[str, ActorRecord]]:
    """Wait until the table from the log equals the records, which stay as they are; where in the log that was."""
    log = EventLog(bus)
    found: dict[str, object] = {}
    try:
        async with asyncio.timeout(SETTLED_S):
            while True:
                before = await records_of(system)
                _, last = await log.bounds()
                found = difference(await power_table(log, last), before)
                _, end = await log.bounds()
                if not found and before == await records_of(system) and last == end:
                    return last, before
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"the log and the records never agreed: {found}") from None


async def records_of(system: System) -> dict[str, ActorRecord]:
    """VX11_ACTORS, by the stock client."""
    client = await nats.connect(system.url, nkeys_seed=str(system.seed("client")), allow_reconnect=False)
    try:
        bucket = await client.jetstream().key_value("VX11_ACTORS")
        return {key: ActorRecord.model_validate_json((await bucket.get(key)).value or b"") for key in await bucket.keys()}
    finally:
        await client.close()


def difference(table: PowerTable, records: dict[str, ActorRecord]) -> dict[str, object]:
    """Of each actor what the two do not agree about; without any event it has to be as it was made."""
    found: dict[str, object] = {}
    for name, record in records.items():
        row = table.rows.get(name)
        same = SAME if name != "madre" else ("state", "instance", "owner")
        has = {field: getattr(record, field) for field in same}
        has["state"] = "active" if has["state"] == "handover" else has["state"]
        told = {field: getattr(row or ActorRecord(actor=name), field) for field in same}
        if has != told:
            found[name] = {field: (has[field], told[field]) for field in same if has[field] != told[field]}
    return found | {name: "has no record" for name in table.rows if name not in records}
