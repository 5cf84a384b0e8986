"""A program that has nothing of VX11 but the server's address and a seed file: nats-py as it is, as the user `client`."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import ConsumerConfig, DeliverPolicy, KeyValueConfig, StreamConfig
from nats.js.errors import APIError, KeyNotFoundError

from tests.e2e.house import KNOWN, House, until
from tests.e2e.services import VERBS, services

STOCK_TIMEOUT_S = 5.0
"""What a stock client waits for an answer when nobody says otherwise."""
JOTTED = "vx11.events.notebook.jotted"


# -- sleepers exist ------------------------------------------------------------------------------------------------------


async def test_sleepers_are_listed_by_ping(home: House) -> None:
    """`nats micro ls` sees who exists, not who happens to run."""
    await home.sleep()
    async with home.stock() as client:
        found = await services(client, "PING")
    assert set(found) == KNOWN | {"madre"}
    assert found["notebook"].metadata["vx11.state"] == "dormant"


async def test_a_sleeper_tells_its_endpoints(home: House) -> None:
    await home.sleep()
    async with home.stock() as client:
        found = await services(client, "INFO", "notebook")
    assert {one.name for one in found["notebook"].endpoints} == {"list_lines", "write"}
    assert all(VERBS.match(one.subject) for one in found["notebook"].endpoints)
    assert found["notebook"].description == "keeps what it is told"


async def test_a_sleeper_has_valid_statistics(home: House) -> None:
    """One invalid STATS makes the stock command line fail for all services."""
    await home.sleep()
    async with home.stock() as client:
        assert set(await services(client, "STATS")) == KNOWN | {"madre"}


async def test_statistics_count_what_was_asked(home: House) -> None:
    async with home.stock() as client:
        await client.request("vx11.notebook.list_lines", b"{}", timeout=STOCK_TIMEOUT_S)
        await client.request("vx11.notebook.list_lines", b'{"no": "field"}', timeout=STOCK_TIMEOUT_S)
        stats = (await services(client, "STATS", "notebook"))["notebook"]
        counted = next(one for one in stats.endpoints if one.name == "list_lines")
    assert (counted.num_requests, counted.num_errors) >= (2, 1)
    assert "invalid" in counted.last_error


async def test_one_instance_can_be_asked_for_by_its_id(home: House) -> None:
    await home.sleep()
    async with home.stock() as client:
        ids = [(await services(client, "PING", "switch"))["switch"].id for _ in range(2)]
        assert ids[0] == ids[1], "a sleeper's id stays the same"
        assert set(await services(client, "INFO", "switch", ids[0])) == {"switch"}


async def test_whoever_is_awake_answers_once_and_for_itself(home: House) -> None:
    async with home.stock() as client:
        await client.request("vx11.notebook.list_lines", b"{}", timeout=STOCK_TIMEOUT_S)
        found = await services(client, "PING")
    assert set(found) == KNOWN | {"madre"}
    assert found["notebook"].metadata["vx11.state"] == "active"


# -- sleepers answer -----------------------------------------------------------------------------------------------------


async def test_a_dormant_actor_answers_a_plain_request(home: House) -> None:
    await home.sleep("notebook")
    begun = time.monotonic()
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.write", b'{"text": "plain"}', timeout=STOCK_TIMEOUT_S)
    assert time.monotonic() - begun < STOCK_TIMEOUT_S
    assert json.loads(answer.data)["pid"] > 0
    assert int(answer.headers["vx11-wake-ms"]) > 0


async def test_an_empty_body_is_an_empty_request(home: House) -> None:
    """`nats req vx11.notebook.list_lines ''`"""
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.list_lines", b"", timeout=STOCK_TIMEOUT_S)
    assert "lines" in json.loads(answer.data)


async def test_a_streaming_verb_answers_once_when_no_stream_was_asked_for(home: House) -> None:
    await home.sleep("operator_backend", "switch")
    async with home.stock() as client:
        inbox = client.new_inbox()
        heard = await client.subscribe(inbox)
        await client.publish("vx11.operator_backend.chat", b'{"message": "hello"}', reply=inbox)
        answer = json.loads((await heard.next_msg(STOCK_TIMEOUT_S)).data)
        await client.request("vx11.operator_backend.describe")
        assert heard.pending_msgs == 0
    assert answer["response"]


async def test_a_wrong_body_is_answered_in_the_way_of_services(home: House) -> None:
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.write", b'{"text": 3}', timeout=STOCK_TIMEOUT_S)
    assert answer.headers["Nats-Service-Error-Code"] == "400"
    assert json.loads(answer.data)["error"] == "invalid"


@pytest.mark.parametrize("body", [b"no json", b"[]", b"\xff\xfe", b'{"text": "a", "more": 1}', b"null", b'{"text":' * 400])
async def test_nonsense_is_answered_and_not_waited_for(home: House, body: bytes) -> None:
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.write", body, timeout=STOCK_TIMEOUT_S)
    assert json.loads(answer.data)["error"] == "invalid"


@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "awake"])
async def test_a_verb_that_does_not_exist_is_answered(home: House, asleep: bool) -> None:
    await home.order("sleep" if asleep else "wake", name="notebook")
    async with home.stock() as client:
        answer = await client.request("vx11.notebook.burn", b"{}", timeout=STOCK_TIMEOUT_S)
    assert (json.loads(answer.data)["error"], answer.headers["Nats-Service-Error-Code"]) == ("endpoint_not_found", "404")
    assert (await home.states())["notebook"] == ("dormant" if asleep else "active")


async def test_an_actor_that_does_not_exist_has_no_responders(home: House) -> None:
    """At once, not after the whole timeout."""
    async with home.stock() as client:
        with pytest.raises(NoRespondersError):
            await client.request("vx11.nobody.greet", b"{}", timeout=STOCK_TIMEOUT_S)


async def test_a_thousand_requests_to_a_sleeper_wake_it_once(home: House) -> None:
    await home.sleep("notebook")
    before = await home.last_event()
    async with home.stock() as client:
        asked = [client.request("vx11.notebook.list_lines", b"{}", timeout=STOCK_TIMEOUT_S) for _ in range(1_000)]
        found = await asyncio.gather(*asked)
    assert [one.headers.get("Nats-Service-Error") for one in found] == [None] * 1_000
    woken = {json.loads(one.body)["id"] for one in await home.events(before) if ".power.activate." in one.subject}
    assert len(woken) == 1


# -- the power panel and the log -----------------------------------------------------------------------------------------


async def test_the_bucket_is_a_live_power_panel(home: House) -> None:
    """`nats kv watch VX11_ACTORS`"""
    await home.sleep("notebook")
    async with home.stock() as client:
        bucket = await client.jetstream().key_value("VX11_ACTORS")
        watcher = await bucket.watch("notebook")
        while await watcher.updates(timeout=STOCK_TIMEOUT_S) is not None:
            continue  # None: from here on it is news
        await client.request("vx11.notebook.list_lines", b"{}", timeout=STOCK_TIMEOUT_S)
        await home.sleep("notebook")
        seen: list[str] = []
        while "dormant" not in seen:
            entry = await watcher.updates(timeout=STOCK_TIMEOUT_S)
            seen.append(json.loads(entry.value)["state"])
        await watcher.stop()
    assert seen == ["waking", "active", "dormant"]


async def test_a_record_says_who_is_awake_where_and_since_when(home: House) -> None:
    async with home.stock() as client:
        await client.request("vx11.notebook.list_lines", b"{}", timeout=STOCK_TIMEOUT_S)
        bucket = await client.jetstream().key_value("VX11_ACTORS")

        async def record() -> dict:
            return json.loads((await bucket.get("notebook")).value)

        async def settled() -> bool:
            return (await record())["state"] == "active"

        await until(settled, "the record says active")
        found = await record()
        assert set(await bucket.keys()) == KNOWN | {"madre"}
    assert {"actor", "epoch", "owner", "instance", "host", "pid", "since", "wakes", "last_wake_ms", "card_version"} <= set(found)
    assert found["pid"] in {process.pid for process in home.processes()}


async def test_the_log_can_be_read_by_a_pull_consumer(home: House) -> None:
    await home.sleep("notebook")
    before = await home.last_event()
    await home.order("wake", name="notebook")
    async with home.stock() as client:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=before + 1)
        puller = await client.jetstream().pull_subscribe("vx11.events.power.>", stream="VX11_EVENTS", config=config)
        facts: list[str] = []
        while "active" not in facts:
            for msg in await puller.fetch(10, timeout=STOCK_TIMEOUT_S):
                facts.append(msg.subject.split(".")[3])
                await msg.ack()
        await puller.unsubscribe()
    told = [fact for fact in dict.fromkeys(facts) if fact != "exited"]  # of the one before, whose end is told of late
    assert told == ["activate", "waking", "active"]


async def test_the_log_can_be_read_by_an_ordered_consumer(home: House) -> None:
    """`nats stream view VX11_EVENTS`"""
    async with home.stock() as client:
        reader = await client.jetstream().subscribe("vx11.events.>", stream="VX11_EVENTS", ordered_consumer=True)
        first = await reader.next_msg(STOCK_TIMEOUT_S)
        await reader.unsubscribe()
    assert first.metadata.sequence.stream == 1


async def test_what_happens_can_be_heard_as_it_happens(home: House) -> None:
    """`nats sub 'vx11.events.>'`"""
    await home.sleep("notebook")
    async with home.stock() as client:
        heard = await client.subscribe("vx11.events.power.active.*")
        await client.request("vx11.notebook.list_lines", b"{}", timeout=STOCK_TIMEOUT_S)
        assert json.loads((await heard.next_msg(STOCK_TIMEOUT_S)).data)["actor"] == "notebook"


async def test_an_event_is_acknowledged_once_it_is_stored(home: House) -> None:
    async with home.stock() as client:
        stream = client.jetstream()
        ack = await stream.publish("vx11.events.studio.opened", b'{"by": "ana"}')
        again = [await stream.publish("vx11.events.studio.shut", b"{}", headers={"Nats-Msg-Id": "one"}) for _ in range(2)]
    assert ack.stream == "VX11_EVENTS"
    assert (again[0].seq, again[1].duplicate) == (again[1].seq, True)


# -- what it is refused --------------------------------------------------------------------------------------------------

FORBIDDEN_SUBJECTS = (
    "vx11.events.power.active.notebook",
    "vx11.events.power.activate.switch",
    "vx11.events.power.slept.notebook",
    "vx11.inst.notebook.some-run._drain",
    "vx11.inst.notebook.some-run.write",
    "vx11.hb.notebook.some-run",
    "vx11.calls.notebook.write",
    "vx11.dlq.notebook.keep",
    "vx11.host.all.cards",
    "vx11.jobs.render",
    "$KV.VX11_ACTORS.notebook",
    "$KV.VX11_LEASES.gate.notebook",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.UPDATE.VX11_EVENTS",
    "$JS.API.STREAM.DELETE.VX11_EVENTS",
    "$JS.API.STREAM.PURGE.VX11_EVENTS",
    "$JS.API.STREAM.MSG.DELETE.VX11_EVENTS",
    "$JS.API.STREAM.SNAPSHOT.VX11_EVENTS",
    "$JS.API.STREAM.RESTORE.VX11_EVENTS",
    "_INBOX_gateway.x.1",
    "_INBOX_madre.x.1",
    "$SYS.REQ.SERVER.PING",
)
FORBIDDEN_EARS = (
    ">",
    "_INBOX_gateway.>",
    "_INBOX_madre.>",
    "_INBOX_actor.>",
    "vx11.>",
    "vx11.switch.>",
    "vx11.switch.chat",
    "vx11.inst.>",
    "vx11.host.>",
    "$SRV.>",
    "$JS.API.>",
    "$KV.>",
)


@pytest.mark.parametrize("subject", FORBIDDEN_SUBJECTS)
async def test_it_may_not_publish(home: House, subject: str) -> None:
    assert await refusals(home, lambda client: client.publish(subject, b"{}")) == ["publish"]


@pytest.mark.parametrize("subject", FORBIDDEN_EARS)
async def test_it_may_not_listen(home: House, subject: str) -> None:
    """Whoever hears another's inbox reads its answers; whoever is in an actor's queue group steals its requests."""
    assert await refusals(home, lambda client: client.subscribe(subject, queue="")) == ["subscription"]


@pytest.mark.parametrize("subject", ["vx11.switch.>", "vx11.switch.chat"])
async def test_it_may_not_join_a_queue_group(home: House, subject: str) -> None:
    assert await refusals(home, lambda client: client.subscribe(subject, queue="switch")) == ["subscription"]


async def refusals(home: House, move) -> list[str]:
    """What the server refused, of what was just done."""
    errors: list[Exception] = []
    async with home.stock(errors=errors) as client:
        await move(client)
        await client.flush()
        await until(lambda: errors, "the server refuses it", 2.0)
    told = [str(error).lower() for error in errors]
    assert all("permissions violation" in one for one in told), told
    return [word for one in told for word in ("publish", "subscription") if f"for {word}" in one]


@pytest.mark.parametrize(
    "move",
    [
        lambda js: js.add_stream(StreamConfig(name="MINE", subjects=["mine.>"])),
        lambda js: js.update_stream(StreamConfig(name="VX11_EVENTS", subjects=["vx11.events.>"], max_msgs=1)),
        lambda js: js.delete_stream("VX11_EVENTS"),
        lambda js: js.purge_stream("VX11_EVENTS"),
        lambda js: js.create_key_value(KeyValueConfig(bucket="MINE")),
        lambda js: js.delete_key_value("VX11_ACTORS"),
    ],
    ids=["create", "update", "delete", "purge", "create a bucket", "delete a bucket"],
)
async def test_it_may_not_change_a_stream_by_the_library_either(home: House, move) -> None:
    before = await home.last_event()
    async with home.stock() as client:
        with pytest.raises((TimeoutError, APIError)):
            await move(client.jetstream(timeout=0.3))
    assert await home.last_event() == before


async def test_it_may_not_write_a_record(home: House) -> None:
    """Else anybody could claim an actor."""
    async with home.stock() as client:
        bucket = await client.jetstream(timeout=0.3).key_value("VX11_ACTORS")
        before = await bucket.get("notebook")
        for move in (bucket.put("notebook", b"{}"), bucket.delete("notebook"), bucket.purge("notebook")):
            with pytest.raises((TimeoutError, KeyNotFoundError)):
                await move
        assert (await bucket.get("notebook")).revision == before.revision


async def test_its_seed_is_not_that_of_others(home: House) -> None:
    """Each user has its own; the files are for their owner only."""
    seeds = sorted((home.home / "nats").glob("*.nk"))
    assert len({seed.read_text() for seed in seeds}) == len(seeds) >= 6
    assert {seed.stat().st_mode & 0o077 for seed in seeds} == {0}


async def test_nobody_comes_in_without_a_seed(home: House) -> None:
    client = Client()
    with pytest.raises(NatsError):
        await client.connect(home.system.url, allow_reconnect=False, error_cb=_silent)
    await client.close()


async def _silent(error: Exception) -> None:
    """The error is raised, too."""
