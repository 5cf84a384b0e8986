"""What can be done to the files of the log while nothing runs, and whether the keeper names the first event that suffered."""

from __future__ import annotations

import asyncio
import dataclasses
import os

import pytest

from bus.eventlog import STREAM
from bus.vault import open_vault
from schemas.errors import Failure
from tests.keeper.archive import QUICK, Archive, first_lost, readable, records, sell, settled, until, until_true

LONG = bool(os.environ.get("VX11_LONG_LOG"))


async def prepared(archive: Archive, events: int = 40) -> dict[int, bytes]:
    """The log as it was when the keeper ended in peace."""
    async with archive.checked(), archive.connect() as bus:
        await sell(bus, events)
    async with archive.connect() as bus:
        return await readable(bus)


async def found(archive: Archive):
    """What the keeper finds when it starts, and what a full comparison then says; both must agree."""
    async with archive.checked() as keeper:
        state = await keeper.state()
        verified = await keeper.verify()
        if state.state != "broken":
            assert verified.whole
            return None
        assert not verified.whole
        (finding,) = state.findings
        assert verified.finding == finding
        return finding


async def test_an_untouched_log_is_whole_after_a_restart(archive):
    await prepared(archive)
    archive.damage(lambda block: block)
    assert await found(archive) is None


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("number", [0, 17, -1])
async def test_a_flipped_bit_is_found(archive, killed, number):
    """The server drops the event, and after a kill all behind it, without a line in its log."""
    before = await prepared(archive)

    def flip(block: bytes) -> bytes:
        offset, length, _ = records(block)[number]
        at = offset + length - 12  # in the body: behind it is the server's checksum of 8 bytes
        return block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]

    archive.damage(flip, killed=killed)
    async with archive.connect() as bus:
        lost = first_lost(before, await readable(bus))
    finding = await found(archive)
    assert lost is not None
    assert (finding.sequence, finding.fault in ("missing", "cut", "beginning")) == (lost, True)


async def test_events_that_are_given_the_sequences_of_lost_ones_are_not_taken_for_them(archive):
    before = await prepared(archive)
    archive.damage(lambda block: block[: records(block)[20][0]])
    async with archive.connect() as bus:
        await sell(bus, 60, start=1_000)
        lost = first_lost(before, await readable(bus))
    finding = await found(archive)
    assert (finding.fault, finding.sequence) == ("changed", lost)


async def test_a_changed_event_with_a_right_checksum_is_found(archive):
    """Who can write the files can also publish the same again with one word changed."""
    before = await prepared(archive)
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.PURGE.VX11_EVENTS", b'{"seq": 1}')
        await bus.api("$JS.API.STREAM.DELETE.VX11_EVENTS")
        await archive.make_streams()
        for sequence, body in before.items():
            changed = body.replace(b"apple", b"grape") if sequence == 23 else body
            headers = {"correlation_id": f"conversation-{(sequence - 1) % 4}"}
            await bus.publish_raw("vx11.events.shop.sold", changed, headers=headers)
    finding = await found(archive)
    assert (finding.fault, finding.sequence) == ("changed", 1), "the times are others from the first event on"


async def test_a_deleted_event_in_the_middle_is_found(archive):
    await prepared(archive)
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", b'{"seq": 9}')
    finding = await found(archive)
    assert (finding.fault, finding.sequence) == ("missing", 9)


async def test_a_beginning_that_the_keeper_did_not_trim_is_missed(archive):
    await prepared(archive)
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.PURGE.VX11_EVENTS", b'{"seq": 12}')
    finding = await found(archive)
    assert (finding.fault, finding.sequence) == ("beginning", 1)


@pytest.mark.timeout(1_200 if LONG else 60)
async def test_the_tail_cut_anywhere_is_found(archive, tmp_path_factory):
    """Every cut that costs an event; the long form tries every offset of the file, the short one those around two records."""
    before = await prepared(archive, 4 if LONG else 12)  # the long form takes some minutes with four
    archive.server.stop()
    whole = archive.block.read_bytes()
    kept = tmp_path_factory.mktemp("kept")
    archive.copy_to(kept)
    ends = [offset + length for offset, length, _ in records(whole)]
    near = {offset + more for offset in (0, ends[3], *ends[-3:]) for more in (-9, -1, 0, 1, 5)}
    offsets = range(len(whole)) if LONG else sorted(near & set(range(len(whole))))
    for offset in offsets:
        archive.put_back(kept)
        archive.block.write_bytes(whole[:offset])
        if offset % 2:
            (archive.store / "msgs" / "index.db").unlink(missing_ok=True)
        archive.server.start()
        async with archive.connect() as bus:
            lost = first_lost(before, await readable(bus))
        finding = await found(archive)
        assert (finding.sequence if finding else None) == lost, f"cut at {offset} of {len(whole)}"
        archive.server.stop()
    archive.server.start()


async def test_an_old_stream_put_back_is_found(archive, tmp_path_factory):
    before = await prepared(archive, 20)
    archive.server.stop()
    kept = tmp_path_factory.mktemp("kept")
    archive.copy_to(kept, archive.home / "nats" / "jetstream")
    archive.server.start()
    async with archive.checked(), archive.connect() as bus:
        await sell(bus, 20, start=20)
    archive.server.stop()
    archive.put_back(kept)
    archive.server.start()
    finding = await found(archive)
    assert (finding.fault, finding.sequence) == ("cut", max(before) + 1)


async def test_an_old_keeper_db_put_back_is_found(archive, tmp_path_factory):
    """It would vouch for whatever has become of the events since."""
    await prepared(archive, 20)
    async with archive.checked() as keeper:
        head = keeper.watch.ledger.head
    kept = tmp_path_factory.mktemp("kept")
    archive.copy_to(kept, archive.home / "keeper")
    async with archive.checked(), archive.connect() as bus:
        await sell(bus, 40, start=20)
    archive.put_back(kept)
    async with archive.checked() as keeper:
        (finding,) = (await keeper.state()).findings
    assert (finding.fault, finding.sequence) == ("keeper", head + 1)


async def test_a_lost_keeper_db_is_found_by_its_own_word_in_the_log(archive):
    await prepared(archive, 20)
    for file in (archive.home / "keeper").glob("keeper.db*"):
        file.unlink()
    async with archive.checked() as keeper:
        assert [one.fault for one in (await keeper.state()).findings] == ["keeper"]


async def test_a_server_that_comes_back_with_less_is_found_by_the_keeper_that_saw_more(archive):
    """The keeper runs on; the server was killed and its file cut."""
    async with archive.checked() as keeper, archive.connect() as bus:
        sequences = await sell(bus, 30)
        await until(lambda: keeper.watch.ledger.head >= sequences[-1])
        archive.damage(lambda block: block[: records(block)[15][0]])
        await until(lambda: keeper.health()["state"] == "broken", "nothing was found")
        assert (await keeper.state()).findings[0].sequence == 16


async def test_a_stream_that_was_cut_and_has_grown_again_is_not_read_on(archive):
    """The keeper runs on and never looks but when the connection is back: what it reads next fits behind its head."""
    async with archive.checked(dataclasses.replace(QUICK, upkeep_s=3_600.0)) as keeper:
        async with archive.connect() as bus:
            sequences = await sell(bus, 30)
        await until(lambda: keeper.watch.ledger.head >= sequences[-1])
        archive.damage(lambda block: block[: records(block)[15][0]])
        async with archive.connect() as bus:
            await sell(bus, 60, start=1_000)
        await until(lambda: keeper.health()["state"] == "broken", "it was read on")
        assert (await keeper.state()).findings[-1].sequence == 16


@pytest.mark.parametrize("cut_short", [TimeoutError, Failure("storage_full", "keeper.db cannot grow")], ids=["late", "full"])
async def test_a_comparison_of_the_end_that_was_cut_short_is_made_again(archive, monkeypatch, cut_short):
    """A search waits for it a second at most, and what it finds may find no room: neither is a reason to read on."""
    async with archive.checked(dataclasses.replace(QUICK, upkeep_s=3_600.0, gather_s=3_600.0)) as keeper:
        watch = keeper.watch
        async with archive.connect() as bus:
            await sell(bus, 30)
        await watch.catch_up()
        archive.damage(lambda block: block[: records(block)[15][0]])
        async with archive.connect() as bus:
            await sell(bus, 60, start=1_000)
        await until(lambda: watch._doubted)
        with monkeypatch.context() as patched, pytest.raises(type(cut_short) if isinstance(cut_short, Failure) else cut_short):

            def fails(bad) -> None:
                raise cut_short

            async def hangs() -> None:
                await asyncio.Event().wait()

            if isinstance(cut_short, Failure):
                patched.setattr(watch, "found", fails)
            else:
                patched.setattr(watch, "_bad_end", hangs)
            async with asyncio.timeout(1.0):
                await watch.catch_up()
        await watch.catch_up()
        assert watch.broken, "it was read on"
        assert watch.broken.sequence == 16


async def test_a_cut_behind_a_new_beginning_is_found_too(archive):
    """The chain has nothing of its own to compare yet: only the stream's end says that something is gone."""
    async with archive.checked() as keeper:
        async with archive.connect() as bus:
            sequences = await sell(bus, 30)
        await until(lambda: keeper.watch.ledger.head >= sequences[-1])
        with keeper.watch.written():
            keeper.watch.ledger.begin(STREAM, 1, keeper.watch.ledger.head)
        archive.damage(lambda block: block[: records(block)[10][0]])
        await until(lambda: keeper.health()["state"] == "broken", "nothing was found")
        assert (await keeper.state()).findings[0].sequence == 11


async def test_an_event_that_is_gone_before_it_was_read_is_missed(archive):
    """Nobody knows what it was; that it was is known by its number."""
    slow = dataclasses.replace(QUICK, gather_s=1.0, upkeep_s=3_600.0)
    async with archive.checked(slow) as keeper, archive.connect() as bus:
        sequences = await sell(bus, 3)
        await bus.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", b'{"seq": %d}' % sequences[1])
        await until(lambda: keeper.health()["state"] == "broken", "nothing was found")
        assert (await keeper.state()).findings[0].sequence == sequences[1]


async def test_a_broken_log_stays_broken_until_somebody_accepts_it(archive):
    """Also over a restart, and whatever is published meanwhile; accepted, it is followed again from there."""
    await prepared(archive)
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", b'{"seq": 9}')
        assert await found(archive)
        async with archive.checked() as keeper:
            before = (await keeper.state()).head
            sequences = await sell(bus, 5)
            await until(lambda: keeper.watch.index.through(STREAM) >= sequences[-1])
            assert (await keeper.state()).head == before, "it was folded on"
        assert await found(archive)
        async with archive.checked() as keeper:
            state = await keeper.accept("the disk was replaced", "ana")
            assert (state.state, state.genesis.sequence >= 45) == ("whole", True)
            assert (state.findings[0].accepted_by, state.findings[0].reason) == ("ana", "the disk was replaced")
            (sequence,) = await sell(bus, 1)
            await until(lambda: keeper.watch.ledger.head >= sequence)
            assert (await keeper.verify()).whole
    assert await found(archive) is None


async def test_the_whole_hash_decides_at_the_end_of_a_block(archive):
    """The eight bytes that are kept of each event's hash only say where; who could make them fall together is found here."""
    await prepared(archive)
    async with archive.checked() as keeper:
        block = keeper.watch.ledger.block(5)
        with keeper.watch.written():
            keeper._vault.do("UPDATE block SET hash = ? WHERE first = ?", bytes(32), block.first)
        verified = await keeper.verify()
        assert (verified.finding.fault, verified.finding.sequence) == ("changed", block.last)


async def test_what_is_not_broken_cannot_be_accepted(archive):
    async with archive.checked() as keeper:
        with pytest.raises(Failure, match="not broken"):
            await keeper.accept("just so", "ana")


async def test_the_log_says_itself_that_it_is_broken(archive):
    await prepared(archive)
    async with archive.connect() as bus:
        await bus.api("$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", b'{"seq": 9}')
        async with archive.keeper() as keeper:
            await settled(keeper)

            async def told() -> bool:
                return any(b'"sequence":9' in body and b"missing" in body for body in (await readable(bus)).values())

            await until_true(told, "no event tells of it")


async def test_a_keeper_without_its_key_says_so_and_goes_on_when_it_is_back(archive):
    """A new key would make the file unreadable for good."""
    await prepared(archive, 5)
    key = archive.home / "keeper" / "keeper.key"
    text = key.read_text()
    key.unlink()
    async with archive.keeper() as keeper:
        await until(lambda: "its key" in keeper.health().get("reason", ""))
        with pytest.raises(Failure, match="restore it"):
            await keeper.state()
        key.write_text(text)
        key.chmod(0o600)
        await settled(keeper)
        assert keeper.health()["state"] == "whole"


async def test_a_keeper_that_cannot_write_its_file_does_not_call_the_log_whole(archive, monkeypatch):
    """What is stored meanwhile is vouched for by nobody."""
    monkeypatch.setattr("actors.keeper.keeper.OPENING_S", 0.0)
    async with archive.checked() as keeper, archive.connect() as bus:

        def full(entries, *_) -> None:
            raise Failure("storage_full", "keeper.db cannot grow")

        with monkeypatch.context() as patched:
            patched.setattr(keeper.watch.index, "add", full)
            await sell(bus, 1)
            await until(lambda: keeper.health() == {"state": "closed", "reason": "keeper.db cannot grow"})
        await until(lambda: keeper.health() == {"state": "whole"})


def test_the_file_of_the_keeper_is_encrypted(tmp_path):
    vault = open_vault(tmp_path / "keeper.db", b"k" * 32, "CREATE TABLE IF NOT EXISTS t (what TEXT)")
    vault.do("INSERT INTO t VALUES ('canary-canary')")
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    vault.close()
    assert b"canary" not in written
    assert b"SQLite" not in written
