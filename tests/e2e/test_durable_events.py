"""An event that a durable handler wants is never lost: not by sleep, not by a death, not by being the first of all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid

from tests.e2e.house import WAIT_S, House, house, until

VARIABLES = {"VX11_IDLE_AFTER": "300"}
JOTTED = "vx11.events.notebook.jotted"


async def jot(home: House, *texts: str) -> list[int]:
    """Publish as a stock client; their numbers in the log."""
    async with home.stock() as client:
        stream = client.jetstream()
        return [(await stream.publish(JOTTED, json.dumps({"text": text}).encode())).seq for text in texts]


def kept(home: House) -> list[str]:
    """What is on disk, without asking (and so waking) anybody."""
    file = home.home / "notebook.jsonl"
    return [json.loads(line)["text"] for line in file.read_text().splitlines()] if file.exists() else []


async def handled(home: House, *texts: str, seconds: float = WAIT_S) -> None:
    await until(lambda: set(texts) <= set(kept(home)), f"all {len(texts)} were handled", seconds)


def fresh(count: int = 1) -> list[str]:
    return [uuid.uuid4().hex for _ in range(count)]


async def test_an_event_wakes_an_actor_that_has_never_run(home: House) -> None:
    """The first test of its file."""
    assert (await home.status("notebook"))["wakes"] == 0
    texts = fresh(3)
    await jot(home, *texts)
    await handled(home, *texts)
    assert (await home.status("notebook"))["wakes"] == 1


async def test_an_event_wakes_a_sleeper(home: House) -> None:
    await home.sleep("notebook")
    texts = fresh()
    await jot(home, *texts)
    await handled(home, *texts)
    assert kept(home).count(texts[0]) == 1


async def test_an_event_finds_its_handler_awake(home: House) -> None:
    await home.order("wake", name="notebook")
    wakes = (await home.status("notebook"))["wakes"]
    texts = fresh(20)
    await jot(home, *texts)
    await handled(home, *texts)
    assert (await home.status("notebook"))["wakes"] == wakes


async def test_an_event_that_was_published_while_madre_was_dead_wakes_it_when_she_is_back(home: House) -> None:
    await home.sleep("notebook")
    texts = fresh()
    with home.frozen(home.supervisor.pid):  # else she is back before the event is published
        born = await home.kill("madre")
        (number,) = await jot(home, *texts)
    await home.back("madre", born)
    await handled(home, *texts)
    started = [one.sequence for one in await home.events(number) if one.subject == "vx11.events.madre.started"]
    assert started, "she was dead when it was published"
    assert kept(home).count(texts[0]) == 1


async def test_an_event_that_was_published_while_the_host_was_dead_is_handled_when_it_is_back(home: House) -> None:
    await home.order("wake", name="notebook")
    born = await home.kill("host")
    texts = fresh()
    await jot(home, *texts)
    await home.back("host", born)
    await handled(home, *texts)


async def test_an_event_that_was_published_while_the_instance_was_dead_is_handled_by_the_next(home: House) -> None:
    await home.order("wake", name="notebook")
    pid = (await home.status("notebook"))["pid"]
    os.kill(pid, signal.SIGKILL)
    texts = fresh(5)
    await jot(home, *texts)
    await handled(home, *texts)
    assert (await home.status("notebook"))["pid"] != pid


async def test_events_that_are_published_all_the_way_through_a_sleep_are_all_handled(home: House) -> None:
    texts = fresh(200)
    published = asyncio.create_task(jot(home, *texts))
    while not published.done():
        await home.order("wake", name="notebook")
        await home.order("sleep", name="notebook", recall=False)
    await published
    await handled(home, *texts)


async def test_events_are_stored_and_handled_through_the_death_of_the_server(home: House) -> None:
    await home.order("wake", name="notebook")
    texts = fresh(2)
    await jot(home, texts[0])
    born = await home.kill("nats-server")
    await home.back("nats-server", born)
    await jot(home, texts[1])
    await handled(home, *texts)


async def test_a_closed_gate_keeps_the_event_until_it_opens(home: House) -> None:
    """Policy delays, it does not lose."""
    await home.order("set_gate", name="notebook", gate="closed")
    await home.asleep("notebook")
    texts = fresh()
    await jot(home, *texts)
    assert (await home.states())["notebook"] == "dormant"
    await home.order("set_gate", name="notebook", gate="on_demand")
    await handled(home, *texts)
    assert kept(home).count(texts[0]) == 1


async def test_an_event_that_an_actor_publishes_by_http_carries_who_published_it(home: House) -> None:
    """And the conversation, to the handler that runs later, in another process."""
    (text,) = fresh()
    answer = await home.post("/events/notebook/jotted", {"text": text}, headers={"X-Correlation-Id": "conversation-1"})
    assert answer.json["checked"] is True
    await handled(home, text)
    (line,) = [one for one in (await home.post("/call/notebook/list_lines")).json["lines"] if one["text"] == text]
    assert line["correlation_id"] == "conversation-1"
    assert line["caller"] in (home.home / "tokens.json").read_text()


async def test_an_event_of_a_wrong_form_does_not_come_in_by_http(home: House) -> None:
    """The door knows the form from the card of the one who hears it."""
    answer = await home.post("/events/notebook/jotted", {"text": 3})
    assert (answer.status, answer.json["error"]) == (400, "invalid")


def test_an_event_waits_through_a_stop_and_a_start_of_the_whole(tmp_path) -> None:
    """The lights go out in the whole house between the publishing and the handling."""
    (text,) = fresh()

    async def leave(one: House) -> None:
        await one.order("set_gate", name="notebook", gate="closed")
        await jot(one, text)

    async def come_back(one: House) -> None:
        assert (await one.status("notebook"))["gate"] == "closed"
        await one.order("set_gate", name="notebook", gate="on_demand")
        await handled(one, text)

    with house(tmp_path) as one:
        asyncio.run(leave(one))
    with house(tmp_path) as one:
        asyncio.run(come_back(one))


async def test_an_event_whose_handler_dies_is_handled_again(home: House) -> None:
    """At least once: what was written before the death and not acknowledged may be written twice, never not at all."""
    await home.order("wake", name="notebook")
    texts = fresh(50)
    publishing = asyncio.create_task(jot(home, *texts))
    await until(lambda: texts[5] in kept(home), "some were handled")
    os.kill((await home.status("notebook"))["pid"], signal.SIGKILL)
    await publishing
    await handled(home, *texts, seconds=2 * WAIT_S)
