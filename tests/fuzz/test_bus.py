"""Garbage on the bus, sent by whom everybody may be: always an answer with a code, and never `internal`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.house import House, until
from tests.fuzz.bus_garbage import ANY_BODY, ANY_HEAD, ANY_VERB, BODIES, HEADS, NAMES, ORDERS, VALUES, header, nearly
from tests.fuzz.conftest import LONG
from tests.fuzz.stranger import ANSWER_S, Sent, Stranger

EXAMPLES = 1_000 if LONG else 40
LONG_S = 600
SLEEPERS = ("notebook", "operator_backend", "switch")
ACTORS = ("madre", *SLEEPERS)
STATES = ("asleep", "awake")
DENIED_VERBS = {("madre", "register")}
"""A host's word: the server lets no client say it, and nobody can answer."""
AT_ONCE = 16
"""Requests under way: enough that some find an actor asleep, some waking and some awake."""


async def all_answered(stranger: Stranger, all_sent: Iterable[Sent]) -> Counter[str]:
    """How often each code was the answer."""
    places, found = asyncio.Semaphore(AT_ONCE), Counter[str]()

    async def one(sent: Sent) -> None:
        async with places:
            found[await stranger.code(sent)] += 1

    async with asyncio.TaskGroup() as group:
        for sent in all_sent:
            group.create_task(one(sent))
    return found


async def verbs_of(home: House, actor: str) -> dict[str, dict]:
    """Their request schemas, as everybody can ask for them."""
    async with home.stock() as client:
        answer = await client.request(f"vx11.{actor}.describe", b"", timeout=ANSWER_S)
    verbs = {verb["name"]: verb["request"] for verb in json.loads(answer.data)["card"]["verbs"]}
    return {name: schema for name, schema in verbs.items() if (actor, name) not in DENIED_VERBS} | {"describe": {}}


async def brought(home: House, actor: str, state: str) -> None:
    if actor in SLEEPERS:
        await home.order("sleep" if state == "asleep" else "wake", name=actor)


def test_everybody_of_the_house_is_tried(home: House) -> None:
    assert set(asyncio.run(home.states())) == set(ACTORS) - {"madre"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("actor", ACTORS)
async def test_any_body_at_any_verb_is_answered(home: House, actor: str, state: str) -> None:
    verbs = await verbs_of(home, actor)
    await brought(home, actor, state)
    async with Stranger.at(home) as stranger:
        sent = [Sent(f"vx11.{actor}.{v}".encode(), b) for v, schema in verbs.items() for b in (*BODIES, *nearly(schema))]
        found = await all_answered(stranger, sent)
    assert found["invalid"] > len(verbs), found


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("subject", [b"vx11.madre.list_actors", b"vx11.notebook.list_lines", b"vx11.switch.list_models"])
async def test_a_header_is_hardly_ever_a_reason_to_refuse(home: House, subject: bytes, state: str) -> None:
    """Neither is any a reason to answer garbage with anything else than that it is."""
    heads = [*HEADS, *(header(name, value) for name in NAMES for value in VALUES)]
    await brought(home, subject.split(b".")[1].decode(), state)
    async with Stranger.at(home) as stranger:
        good = await all_answered(stranger, [Sent(subject, b"{}", head) for head in heads])
        bad = await all_answered(stranger, [Sent(subject, b"nonsense", head) for head in heads])
    assert good["ok"] > 0.9 * len(heads), good
    assert bad["invalid"] > 0.9 * len(heads), bad


async def test_any_subject_is_answered(home: House) -> None:
    """By somebody, or by the server's word that nobody is there."""
    verbs = [b"nothing", b"_drain", b"_stay", b"_ping", b"LIST_LINES", b"\xff\xfe", b"\x00", b"x" * 2_000, b"%s", b"{}"]
    names = [*(actor.encode() for actor in ACTORS), b"nobody", b"tentaculo_link", b"redis", b"NOTEBOOK", b"\xff", b"a" * 1_000]
    async with Stranger.at(home) as stranger:
        for _ in STATES:
            await home.sleep("notebook")
            found = await all_answered(stranger, [Sent(b"vx11." + n + b"." + v) for n in names for v in verbs])
            assert not found["ok"], found
        assert not stranger.denied


@pytest.mark.timeout(LONG_S if LONG else 60)
@settings(max_examples=EXAMPLES, database=None, derandomize=not LONG, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_anything_at_all_is_answered(home: House, data: st.DataObject) -> None:
    verbs = st.one_of(st.sampled_from([b"list_lines", b"write", b"chat", b"describe", b"get_actor"]), ANY_VERB)
    one = st.tuples(st.sampled_from(ACTORS), verbs, ANY_BODY, ANY_HEAD)
    drawn = data.draw(st.lists(one, min_size=1, max_size=24))
    asleep = data.draw(st.booleans())

    async def tried() -> None:
        async with Stranger.at(home) as stranger:
            if asleep:  # it leaves meanwhile, or not: an answer that may be asked for again keeps it for up to a minute
                await stranger.say(Sent(b"vx11.madre.sleep", b'{"name": "notebook"}'))
            sent = [Sent(f"vx11.{actor}.".encode() + verb, body, head) for actor, verb, body, head in drawn]
            await all_answered(stranger, sent)

    asyncio.run(tried())


async def test_garbage_as_events_is_stored_or_refused_and_forgets_nothing(home: House) -> None:
    """Headers that order JetStream about must not remove what others have said."""
    heads = [None, *HEADS, *ORDERS, *(header(name, value) for name in NAMES for value in VALUES)]
    before = await home.last_event()
    async with Stranger.at(home) as stranger:
        await stranger.ask(Sent(b"vx11.events.studio.first", b"{}"))
        for number, head in enumerate(heads):
            subject = (b"vx11.events.studio.garbage", b"vx11.events.notebook.jotted", b"vx11.events.x.y.z")[number % 3]
            await stranger.ask(Sent(subject, BODIES[number % 24], head))
        assert not stranger.denied
    stored = await home.events(before)
    assert [one.subject for one in stored].count("vx11.events.studio.first") == 1
    assert len(stored) > len(heads) / 2


async def test_garbage_for_discovery_brings_nobody_down(home: House) -> None:
    async with Stranger.at(home) as stranger:
        for word in (b"PING", b"INFO", b"STATS", b"PING.notebook", b"INFO.madre", b"STATS.nobody.x", b"NOTHING", b"PING.\xff"):
            for body in BODIES:
                await stranger.say(Sent(b"$SRV." + word, body), b"_INBOX.nobody")
                await stranger.say(Sent(b"$SRV." + word, body, b"\xff: \xff\r\n"))
        assert json.loads((await stranger.ask(Sent(b"$SRV.PING.notebook", b""))).data)["name"] == "notebook"


DENIED = (
    "vx11.madre.register", "vx11.power.x", "vx11.inst.x", "vx11.inst.notebook.x._drain", "vx11.hb.notebook.x", "vx11.calls.a.b",
    "vx11.host.x", "vx11.dlq.x", "vx11.jobs.x", "vx11.events.power.slept.notebook", "vx11.events.madre.started",
    "vx11.notebook", "vx11.notebook.a.b", "_INBOX_madre.x", "_INBOX_actor.x", "$KV.VX11_ACTORS.notebook",
    "$JS.API.STREAM.DELETE.VX11_EVENTS", "$JS.API.STREAM.PURGE.VX11_EVENTS", "$JS.API.STREAM.MSG.DELETE.VX11_EVENTS",
    "$JS.API.STREAM.UPDATE.VX11_EVENTS", "$JS.API.STREAM.CREATE.MINE", "$SYS.REQ.SERVER.PING", "other.subject",
)  # fmt: skip


async def test_what_a_client_may_not_say_stays_denied(home: House) -> None:
    errors: list[Exception] = []
    async with home.stock(errors=errors) as client:
        for subject in DENIED:
            await client.publish(subject, b"{}")
        await until(lambda: len(errors) >= len(DENIED), "the server has refused all of it")
        told = " ".join(map(str, errors)).lower()
    assert [subject for subject in DENIED if f'"{subject.lower()}"' not in told] == []


async def test_after_all_of_it_honest_requests_are_answered(home: House) -> None:
    """On the bus, and at the door, which tells of what it has heard there."""
    async with home.stock() as client:
        for actor in ACTORS:
            answer = await client.request(f"vx11.{actor}.describe", b"{}", timeout=ANSWER_S)
            assert json.loads(answer.data)["card"]["name"] == actor
        written = await client.request("vx11.notebook.write", b'{"text": "still here"}', timeout=ANSWER_S)
        assert json.loads(written.data)["pid"] == (await home.status("notebook"))["pid"]
    for look in ("/operator/api/events?limit=500", "/operator/api/status", "/operator/api/metrics", "/api/map", "/metrics"):
        assert (await home.get(look)).status == 200, look
