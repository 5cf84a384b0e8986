"""Who may say and hear what on the bus, measured on a real server with a plain NATS client."""

from __future__ import annotations

import asyncio
import stat
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.api import ConsumerConfig, KeyValueConfig, StreamConfig

from bus.users import USERS, inbox_prefix, make_seeds
from schemas.errors import Failure

YES, NO = True, False

PUBLISH = [
    # user, subject, allowed
    ("client", "vx11.switch.chat", YES),
    ("client", "vx11.madre.wake", YES),
    ("client", "vx11.greeter.greet", YES),
    ("client", "vx11.events.shop.sold", YES),
    ("client", "$SRV.PING", YES),
    ("client", "$SRV.INFO.switch", YES),
    ("client", "$JS.API.STREAM.INFO.VX11_EVENTS", YES),
    ("client", "$JS.API.STREAM.LIST", YES),
    ("client", "$JS.API.STREAM.MSG.GET.VX11_EVENTS", YES),
    ("client", "$JS.API.DIRECT.GET.KV_VX11_ACTORS.$KV.VX11_ACTORS.switch", YES),
    ("client", "$JS.API.CONSUMER.CREATE.VX11_EVENTS.mine.vx11.events.>", YES),
    ("client", "$JS.API.CONSUMER.MSG.NEXT.VX11_EVENTS.mine", YES),
    ("client", "vx11.sandbox.one.vx11.events.power.activate.switch", YES),
    ("client", "vx11.events.power.activate.switch", NO),
    ("client", "vx11.events.keeper.checkpointed", NO),
    ("client", "vx11.events.power.slept.switch", NO),
    ("client", "vx11.events.power.active", NO),
    ("client", "vx11.events.dlq.again.shop__note.1-1", NO),
    ("client", "vx11.events.dlq.tried.shop__note.1-1", NO),
    ("client", "vx11.inst.switch.run1.chat", NO),
    ("client", "vx11.inst.switch.run1._drain", NO),
    ("client", "vx11.inst.switch", NO),
    ("client", "vx11.hb.switch.run1", NO),
    ("client", "vx11.hb.switch", NO),
    ("client", "vx11.host.stop", NO),
    ("client", "vx11.host.local.kill", NO),
    ("client", "vx11.calls.switch.chat", NO),
    ("client", "vx11.dlq.switch", NO),
    ("client", "vx11.jobs.scan", NO),
    ("client", "vx11.switch.chat.more", NO),
    ("client", "$KV.VX11_ACTORS.switch", NO),
    ("client", "$JS.API.STREAM.CREATE.MINE", NO),
    ("client", "$JS.API.STREAM.UPDATE.VX11_EVENTS", NO),
    ("client", "$JS.API.STREAM.DELETE.VX11_EVENTS", NO),
    ("client", "$JS.API.STREAM.PURGE.VX11_EVENTS", NO),
    ("client", "$JS.API.STREAM.MSG.DELETE.VX11_EVENTS", NO),
    ("client", "$JS.API.STREAM.RESTORE.VX11_EVENTS", NO),
    ("client", "_INBOX_gateway.abc.1", NO),
    ("client", "_INBOX.abc.1", YES),
    ("client", "outside", NO),
    ("actor", "vx11.switch.chat", YES),
    ("actor", "vx11.madre.renew_lease", YES),
    ("actor", "vx11.events.switch.model_failed", YES),
    ("actor", "vx11.events.power.active.switch", YES),
    ("actor", "vx11.events.power.slept.switch", YES),
    ("actor", "vx11.events.dlq.tried.switch__distrust.1-1", YES),
    ("actor", "vx11.events.dlq.again.switch__distrust.1-1", NO),
    ("actor", "vx11.jobs.dlq.again.ant__work.1-1", NO),
    ("actor", "vx11.calls.switch.chat", YES),
    ("actor", "vx11.dlq.switch", YES),
    ("actor", "vx11.jobs.scan", YES),
    ("actor", "vx11.hb.switch.run1", YES),
    ("actor", "$KV.VX11_ACTORS.switch", YES),
    ("actor", "$JS.API.CONSUMER.MSG.NEXT.VX11_EVENTS.switch__distrust", YES),
    ("actor", "$JS.API.DIRECT.GET.KV_VX11_ACTORS.$KV.VX11_ACTORS.switch", YES),
    ("actor", "$JS.ACK.VX11_EVENTS.switch__distrust.1.1.1.1.0", YES),
    ("actor", "_INBOX.abc.1", YES),
    ("actor", "_INBOX_gateway.abc.1", YES),
    ("actor", "_INBOX_madre.abc.1", YES),
    ("actor", "vx11.events.power.activate.switch", NO),
    ("actor", "vx11.events.power.exited.switch", NO),
    ("actor", "vx11.events.power.waking.switch", NO),
    ("actor", "vx11.events.power.failed.switch", NO),
    ("actor", "vx11.events.power.denied.switch", NO),
    ("actor", "vx11.events.power.draining.switch", NO),
    ("actor", "vx11.events.power.something_new.switch", NO),
    ("actor", "vx11.events.power.active", NO),
    ("actor", "vx11.inst.switch.run1.chat", NO),
    ("actor", "vx11.inst.switch.run1._stay", NO),
    ("actor", "vx11.host.stop", NO),
    ("actor", "vx11.host.local.kill", NO),
    ("actor", "$KV.VX11_LEASES.w1", NO),
    ("actor", "$JS.API.STREAM.CREATE.MINE", NO),
    ("actor", "$JS.API.STREAM.PURGE.VX11_EVENTS", NO),
    ("actor", "$JS.API.STREAM.DELETE.KV_VX11_ACTORS", NO),
    ("host", "vx11.madre.list_actors", YES),
    ("host", "vx11.events.power.waking.switch", YES),
    ("host", "vx11.events.power.exited.switch", YES),
    ("host", "vx11.events.host.card_found", YES),
    ("host", "vx11.events.supervisor.storage_low", YES),
    ("host", "$JS.API.DIRECT.GET.VX11_EVENTS", YES),
    ("host", "vx11.hb.host.local", YES),
    ("host", "_INBOX_madre.abc.1", YES),
    ("host", "vx11.events.power.activate.switch", NO),
    ("host", "vx11.events.power.active.switch", NO),
    ("host", "vx11.switch.chat", NO),
    ("host", "vx11.inst.switch.run1._drain", NO),
    ("host", "$KV.VX11_ACTORS.switch", NO),
    ("host", "$JS.API.STREAM.INFO.VX11_EVENTS", NO),
    ("gateway", "vx11.operator_backend.chat", YES),
    ("gateway", "vx11.events.shop.sold", YES),
    ("gateway", "vx11.calls.tentaculo_link.status", YES),
    ("gateway", "vx11.hb.tentaculo_link.1", YES),
    ("gateway", "$JS.API.DIRECT.GET.KV_VX11_ACTORS.$KV.VX11_ACTORS.switch", YES),
    ("gateway", "_INBOX.abc.1", YES),
    ("gateway", "vx11.events.power.activate.switch", NO),
    ("gateway", "vx11.events.dlq.again.shop__note.1-1", NO),
    ("gateway", "vx11.dlq.switch.chat", YES),
    ("gateway", "vx11.dlq.events.shop.sold", NO),
    ("gateway", "vx11.inst.switch.run1.chat", NO),
    ("gateway", "vx11.hb.switch.run1", NO),
    ("gateway", "vx11.jobs.scan", NO),
    ("gateway", "$KV.VX11_ACTORS.switch", NO),
    ("gateway", "$JS.API.STREAM.DELETE.VX11_EVENTS", NO),
    ("keeper", "vx11.dlq.switch", YES),
    ("keeper", "vx11.events.keeper.checkpointed", YES),
    ("keeper", "vx11.madre.run_maintenance", YES),
    ("keeper", "$JS.API.STREAM.PURGE.VX11_EVENTS", YES),
    ("keeper", "$JS.API.STREAM.MSG.DELETE.VX11_JOBS", YES),
    ("keeper", "vx11.events.power.activate.switch", NO),
    ("keeper", "vx11.inst.switch.run1.chat", NO),
    ("keeper", "$KV.VX11_ACTORS.switch", NO),
    ("keeper", "$JS.API.STREAM.DELETE.VX11_EVENTS", NO),
    ("keeper", "$JS.API.STREAM.UPDATE.VX11_EVENTS", NO),
    ("madre", "vx11.events.power.activate.switch", YES),
    ("madre", "vx11.inst.switch.run1._drain", YES),
    ("madre", "vx11.host.local.kill", YES),
    ("madre", "$KV.VX11_LEASES.w1", YES),
    ("madre", "$JS.API.STREAM.CREATE.VX11_DLQ", YES),
    ("madre", "_INBOX.abc.1", YES),
    ("madre", "_INBOX_gateway.abc.1", YES),
    ("madre", "outside", NO),
]

SUBSCRIBE = [
    ("client", "vx11.events.>", YES),
    ("client", "vx11.events.power.>", YES),
    ("client", "vx11.calls.switch.*", YES),
    ("client", "vx11.dlq.>", YES),
    ("client", "vx11.hb.>", YES),
    ("client", "vx11.sandbox.>", YES),
    ("client", "_INBOX.>", YES),
    ("client", ">", NO),
    ("client", "*.>", NO),
    ("client", "*.*.*", NO),
    ("client", "vx11.>", NO),
    ("client", "vx11.*.>", NO),
    ("client", "vx11.*.*", NO),
    ("client", "vx11.switch.chat", NO),
    ("client", "vx11.switch.>", NO),
    ("client", "vx11.inst.>", NO),
    ("client", "vx11.host.>", NO),
    ("client", "vx11.jobs.>", NO),
    ("client", "_INBOX_gateway.>", NO),
    ("client", "_INBOX_madre.>", NO),
    ("client", "*.abc.*", NO),
    ("client", "$SRV.>", NO),
    ("client", "$KV.>", NO),
    ("client", "$JS.API.>", NO),
    ("actor", "vx11.switch.chat", YES),
    ("actor", "vx11.inst.switch.run1.>", YES),
    ("actor", "vx11.events.>", YES),
    ("actor", "$SRV.PING.switch", YES),
    ("actor", "_INBOX_actor.>", YES),
    ("actor", "vx11.host.>", NO),
    ("actor", "vx11.host.stop", NO),
    ("actor", "_INBOX.>", NO),
    ("actor", "_INBOX_gateway.>", NO),
    ("actor", "_INBOX_madre.>", NO),
    ("actor", ">", NO),
    ("actor", "$JS.API.>", NO),
    ("host", "vx11.host.>", YES),
    ("host", "vx11.events.power.activate.*", YES),
    ("host", "_INBOX_host.>", YES),
    ("host", "vx11.events.madre.*", YES),
    ("host", "vx11.events.>", NO),
    ("host", "vx11.switch.>", NO),
    ("host", "_INBOX_actor.>", NO),
    ("gateway", "vx11.events.>", YES),
    ("gateway", "vx11.tentaculo_link.>", YES),
    ("gateway", "_INBOX_gateway.>", YES),
    ("gateway", "vx11.switch.>", NO),
    ("gateway", "_INBOX.>", NO),
    ("keeper", "vx11.events.>", YES),
    ("keeper", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", YES),
    ("keeper", "vx11.switch.>", NO),
    ("keeper", "_INBOX_madre.>", NO),
    ("madre", "vx11.>", YES),
    ("madre", "$SRV.>", YES),
    ("madre", "_INBOX_madre.>", YES),
    ("madre", "_INBOX.>", NO),
    ("madre", "_INBOX_gateway.>", NO),
]


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_publish_this_and_not_that(nats_server, user):
    rows = [(subject, allowed) for who, subject, allowed in PUBLISH if who == user]
    async with connected(nats_server, user) as (nc, refused):
        for subject, _ in rows:
            await nc.publish(subject, b"{}")
        await settled(nc)
    denied = {subject for subject, _ in rows if any(f'publish to "{subject}"'.lower() in text for text in refused)}
    assert {s for s, allowed in rows if not allowed} == denied


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_subscribe_this_and_not_that(nats_server, user):
    rows = [(subject, allowed) for who, subject, allowed in SUBSCRIBE if who == user]
    async with connected(nats_server, user) as (nc, refused):
        for subject, _ in rows:
            await nc.subscribe(subject)
        await settled(nc)
    denied = {subject for subject, _ in rows if any(f'subscription to "{subject}"'.lower() in text for text in refused)}
    assert {s for s, allowed in rows if not allowed} == denied


async def test_a_denied_publish_reaches_nobody(nats_server):
    """The refusal is no mere message: the witness hears only what was allowed."""
    heard: list[str] = []
    async with connected(nats_server, "madre") as (witness, _), connected(nats_server, "client") as (nc, _):

        async def hear(msg):
            heard.append(msg.subject)

        await witness.subscribe("vx11.>", cb=hear)
        await settled(witness)
        await nc.publish("vx11.inst.switch.run1._drain", b"")
        await nc.publish("vx11.hb.switch.run1", b"")
        await nc.publish("vx11.events.power.activate.switch", b"")
        await nc.publish("vx11.switch.chat", b"")
        await settled(nc)
        await settled(witness)
    assert heard == ["vx11.switch.chat"]


async def test_an_actor_that_hears_everything_does_not_hear_orders_to_hosts(nats_server):
    heard: list[str] = []
    async with connected(nats_server, "actor") as (nc, _), connected(nats_server, "madre") as (madre, _):

        async def hear(msg):
            heard.append(msg.subject)

        await nc.subscribe("vx11.>", cb=hear)
        await settled(nc)
        await madre.publish("vx11.host.local.kill", b"")
        await madre.publish("vx11.switch.chat", b"")
        await settled(madre)
        await settled(nc)
    assert heard == ["vx11.switch.chat"]


@pytest.mark.parametrize("responder", [user for user in USERS if user != "client"])
async def test_who_answers_can_answer_every_user(nats_server, responder):
    """Each user's inboxes are its own, and whoever is asked does not know whose inbox it answers to."""
    subject = {"host": "vx11.host.x", "gateway": "vx11.tentaculo_link.x", "keeper": "vx11.keeper.x"}
    async with connected(nats_server, responder) as (nc, _):

        async def answer(msg):
            await msg.respond(b"here")

        await nc.subscribe(subject.get(responder, "vx11.switch.x"), cb=answer)
        await settled(nc)
        for user in USERS:
            async with connected(nats_server, user) as (asker, refused):
                inbox = await asker.subscribe(asker.new_inbox())
                await settled(asker)
                await nc.publish(inbox.subject, b"here")
                assert (await inbox.next_msg(timeout=2)).data == b"here"
                assert not refused


async def test_a_stock_client_asks_an_actor_without_any_setting_but_its_key(nats_server):
    async with connected(nats_server, "actor") as (actor, _):

        async def answer(msg):
            await msg.respond(b"hello " + msg.data)

        await actor.subscribe("vx11.greeter.greet", cb=answer)
        await settled(actor)
        nc = await nats.connect(nats_server.url, nkeys_seed=str(nats_server.seed_file("client")))
        try:
            reply = await nc.request("vx11.greeter.greet", b"Ana", timeout=2)
        finally:
            await nc.close()
    assert reply.data == b"hello Ana"


async def test_a_stock_client_reads_the_stream_and_watches_the_bucket(nats_server):
    async with connected(nats_server, "madre") as (madre, _), connected(nats_server, "client") as (nc, refused):
        js = madre.jetstream()
        await js.add_stream(StreamConfig(name="VX11_EVENTS", subjects=["vx11.events.>"]))
        bucket = await js.create_key_value(KeyValueConfig(bucket="VX11_ACTORS"))
        await bucket.put("switch", b"{}")
        mine = nc.jetstream()
        await mine.publish("vx11.events.shop.sold", b"one")
        guest = await mine.pull_subscribe("vx11.events.>", durable="guest", config=ConsumerConfig(ack_wait=5))
        [event] = await guest.fetch(1, timeout=2)
        await event.ack_sync(timeout=2)
        view = await mine.key_value("VX11_ACTORS")
        watcher = await view.watchall()
        first = await asyncio.wait_for(watcher.updates(timeout=2), 3)
        got = await view.get("switch")
        info = await mine.stream_info("VX11_EVENTS")
        await watcher.stop()
        await settled(nc)
        await js.delete_stream("VX11_EVENTS")
        await js.delete_key_value("VX11_ACTORS")
    assert (event.data, first.key, got.value, info.state.messages) == (b"one", "switch", b"{}", 1)
    assert not refused


async def test_a_stock_client_cannot_change_a_bucket(nats_server):
    """A denied publish raises only in the error callback, so the put just waits."""
    async with connected(nats_server, "madre") as (madre, _), connected(nats_server, "client") as (nc, refused):
        bucket = await madre.jetstream().create_key_value(KeyValueConfig(bucket="VX11_LEASES"))
        await bucket.put("w1", b"open")
        view = await nc.jetstream(timeout=0.2).key_value("VX11_LEASES")
        with pytest.raises(nats.errors.TimeoutError):
            await view.put("w1", b"forged")
        after = await bucket.get("w1")
        await madre.jetstream().delete_key_value("VX11_LEASES")
    assert after.value == b"open"
    assert any("$kv.vx11_leases.w1" in text for text in refused)


@pytest.mark.parametrize("how", ["nobody", "stranger"])
async def test_who_has_no_key_of_ours_is_refused(nats_server, tmp_path, how):
    make_seeds(tmp_path)
    key = {} if how == "nobody" else {"nkeys_seed": str(tmp_path / "madre.nk")}

    async def silent(error):
        del error  # the refusal is what connect() raises

    nc = nats.NATS()
    with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
        await nc.connect(nats_server.url, **key, error_cb=silent, allow_reconnect=False)
    nc._transport.close()  # nats-py leaves it open when the server says no


def test_seeds_are_made_once_and_for_their_owner_only(tmp_path):
    first = make_seeds(tmp_path / "nats")
    second = make_seeds(tmp_path / "nats")
    assert first == second
    assert set(first) == set(USERS)
    assert len(set(first.values())) == len(USERS)
    assert stat.S_IMODE((tmp_path / "nats").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "nats").iterdir()} == {0o600}


def test_seeds_that_others_can_read_are_closed_to_them(tmp_path):
    make_seeds(tmp_path)
    (tmp_path / "client.nk").chmod(0o644)
    make_seeds(tmp_path)
    assert stat.S_IMODE((tmp_path / "client.nk").stat().st_mode) == 0o600


def test_a_file_without_a_seed_is_named(tmp_path):
    make_seeds(tmp_path)
    (tmp_path / "host.nk").write_text("nonsense\n")
    with pytest.raises(Failure, match=r"host\.nk holds no NKey seed"):
        make_seeds(tmp_path)


@asynccontextmanager
async def connected(server, user):
    """A plain connection of `user` and the list that its permission errors go to."""
    refused: list[str] = []

    async def note(error):
        refused.append(str(error).lower())

    nc = await nats.connect(**server.options(user), error_cb=note, allow_reconnect=False)
    try:
        yield nc, refused
    finally:
        await nc.close()


async def settled(nc):
    """Everything that `nc` has sent so far has been judged by the server, and its refusals are here.

    A message to an own inbox comes back behind them; a PING would overtake what still stands in the client's buffer.
    """
    inbox = await nc.subscribe(nc.new_inbox())
    await nc.publish(inbox.subject, b"")
    await inbox.next_msg(timeout=2)


def test_every_user_has_inboxes_of_its_own():
    assert len({inbox_prefix(user) for user in USERS}) == len(USERS)
