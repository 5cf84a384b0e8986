"""A client that sends what no honest program would: nobody is brought down by it, and nothing is said in another's name."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import pytest

from tests.e2e.house import House, until

STOCK_TIMEOUT_S = 5.0
STATES = ("sleep", "wake")


async def asked(client, verb: str = "list_lines", body: bytes = b"{}", **headers: str) -> dict:
    return json.loads(
        (await client.request(f"vx11.notebook.{verb}", body, timeout=STOCK_TIMEOUT_S, headers=headers or None)).data
    )


async def revision(client, name: str = "notebook") -> int:
    return (await (await client.jetstream().key_value("VX11_ACTORS")).get(name)).revision


# -- whose mouth is it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", ["describe", "list_lines", "burn"])
async def test_an_answer_goes_to_an_inbox_or_nowhere(home: House, verb: str, state: str) -> None:
    """With a reply subject of its choice a client would write records and give orders by the mouth of whoever answers."""
    await home.order(state, name="notebook")
    async with home.stock() as client:
        heard = await client.subscribe("vx11.events.power.slept.notebook")
        await asked(client)
        await home.order(state, name="notebook")
        while heard.pending_msgs:
            await heard.next_msg()
        before = await revision(client)
        for reply in ("$KV.VX11_ACTORS.notebook", "vx11.events.power.slept.notebook"):
            await client.publish(f"vx11.notebook.{verb}", b"{}", reply=reply)
        await client.request("vx11.notebook.describe", timeout=STOCK_TIMEOUT_S)
        await client.flush()
        assert heard.pending_msgs == 0
        if verb != "list_lines" or state == "wake":  # else it has woken for it
            assert await revision(client) == before
        assert "lines" in await asked(client)


async def test_discovery_answers_to_an_inbox_or_nowhere(home: House) -> None:
    await home.sleep("notebook")
    async with home.stock() as client:
        heard = await client.subscribe("vx11.events.power.slept.*")
        await client.publish("$SRV.PING", b"", reply="vx11.events.power.slept.notebook")
        await client.request("vx11.madre.describe", timeout=STOCK_TIMEOUT_S)
        await client.request("vx11.notebook.describe", timeout=STOCK_TIMEOUT_S)
        assert heard.pending_msgs == 0


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("word", ["vx11.events.power.slept.notebook 1", "$KV.VX11_ACTORS.switch 1", "a\tb 1", ">", "5", " "])
async def test_nobody_acknowledges_to_where_a_client_says(home: House, word: str, state: str) -> None:
    """The header by which madre is told that a forwarded request has arrived is nobody else's."""
    await home.order(state, name="notebook")
    async with home.stock() as client:
        heard = await client.subscribe("vx11.events.power.slept.*")
        before = await revision(client, "switch")
        assert "lines" in await asked(client, **{"vx11-forward": word})
        assert "lines" in await asked(client)
        assert heard.pending_msgs == 0
        assert await revision(client, "switch") == before


async def test_a_record_that_is_none_heals(home: House) -> None:
    """JetStream itself answers to any subject: what stands in the bucket may be anything."""
    await home.sleep("notebook")
    async with home.stock() as client:
        await client.jetstream().publish("vx11.events.studio.garbage", b'{"garbage": 1}')
        body = b'{"last_by_subj": "vx11.events.studio.garbage"}'
        before = await revision(client)
        await client.publish("$JS.API.DIRECT.GET.VX11_EVENTS", body, reply="$KV.VX11_ACTORS.notebook")

        async def written() -> bool:
            return await revision(client) > before

        await until(written, "the garbage is in the bucket")
        assert "lines" in await asked(client)
        assert (await home.states())["notebook"] == "active"


async def test_stored_decisions_that_are_none_do_not_keep_madre_from_starting(home: House) -> None:
    async with home.stock() as client:
        stream = client.jetstream()
        for number, text in enumerate(
            ('{"garbage": 1}', '{"policy": "none", "gate": "ajar"}', '{"ends": null, "more": 1}', "[1]")
        ):
            await stream.publish(f"vx11.events.studio.g{number}", text.encode())
            body = json.dumps({"last_by_subj": f"vx11.events.studio.g{number}"}).encode()
            for key in ("policy", "gate.notebook", "window.w1", "lease.l1"):
                await client.publish("$JS.API.DIRECT.GET.VX11_EVENTS", body, reply=f"$KV.VX11_LEASES.{key}{number or ''}")
        await client.flush()
        await home.back("madre", await home.kill("madre"))
        await until(partial(answers, client), "madre answers", STOCK_TIMEOUT_S)
        assert json.loads((await client.request("vx11.madre.get_policy", b"{}")).data)["policy"] == "solo_madre"
        assert "lines" in await asked(client)


async def answers(client) -> bool:
    import nats.errors

    try:
        await client.request("vx11.madre.list_actors", b"{}", timeout=1.0)
    except nats.errors.Error:
        return False
    return True


# -- odd headers ---------------------------------------------------------------------------------------------------------

ODD = (
    {"vx11-deadline": "9" * 40},
    {"vx11-deadline": "-1"},
    {"vx11-deadline": "tomorrow"},
    {"correlation_id": "a b" * 100},
    {"traceparent": "junk"},
    {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-00"},
    {"vx11-request-id": "x" * 10_000},
    {"vx11-path": "notebook," * 1_000},
    {"vx11-held-ms": "9" * 30},
    {"vx11-seq": "1", "vx11-end": "ok"},
    {"Nats-Service-Error": "hm", "Nats-Service-Error-Code": "500"},
    {"vx11-stream": "1"},
    {"vx11-epoch": "99", "vx11-run": "mine"},
    {"Status": "503"},
)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("headers", ODD, ids=" ".join)
async def test_odd_headers_are_no_reason_not_to_answer(home: House, headers: dict[str, str], state: str) -> None:
    await home.order(state, name="notebook")
    async with home.stock() as client:
        assert "pid" in await asked(client, "write", b'{"text": "odd"}', **headers)


@pytest.mark.parametrize("state", STATES)
async def test_what_has_expired_is_not_executed(home: House, state: str) -> None:
    await home.order(state, name="notebook")
    async with home.stock() as client:
        answer = await asked(client, "write", b'{"text": "too late"}', **{"vx11-deadline": "1"})
        assert answer["error"] in ("timeout", "waking")
        assert "too late" not in [line["text"] for line in (await asked(client))["lines"]]


async def test_the_same_id_is_executed_once(home: House) -> None:
    """Also when both copies are there at once, and when the second comes after the answer."""
    async with home.stock() as client:
        body = b'{"text": "once", "seconds": 0.2}'
        copies = [asked(client, "write", body, **{"vx11-request-id": "the-one"}) for _ in range(3)]
        answers = [*await asyncio.gather(*copies), await asked(client, "write", body, **{"vx11-request-id": "the-one"})]
        lines = [line["text"] for line in (await asked(client))["lines"]]
    assert len({json.dumps(answer) for answer in answers}) == 1
    assert lines.count("once") == 1


async def test_a_request_that_nobody_waits_for_is_executed_all_the_same(home: House) -> None:
    """`nats pub` to a verb: no reply subject at all."""
    await home.sleep("notebook")
    async with home.stock() as client:
        await client.publish("vx11.notebook.write", b'{"text": "into the void"}')

        async def written() -> bool:
            return "into the void" in [line["text"] for line in (await asked(client))["lines"]]

        await until(written, "it was written down")


# -- odd events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"no json", b'{"text": 3}', b"[]", b"\xff"])
async def test_an_event_that_is_none_goes_to_the_dead_letters_and_holds_nobody_up(home: House, body: bytes) -> None:
    async with home.stock() as client:
        stream = client.jetstream()
        letters = (await stream.stream_info("VX11_DLQ")).state.messages
        await stream.publish("vx11.events.notebook.jotted", body)
        await stream.publish("vx11.events.notebook.jotted", b'{"text": "after %d"}' % letters)

        async def both_done() -> bool:
            texts = [line["text"] for line in (await asked(client))["lines"]]
            return f"after {letters}" in texts and (await stream.stream_info("VX11_DLQ")).state.messages == letters + 1

        await until(both_done, "one is a dead letter, the next one is handled")


async def test_a_stranger_to_the_subjects_of_power_is_no_power_event(home: House) -> None:
    """`vx11.events.<actor>.slept` of another actor's name is just an event."""
    async with home.stock() as client:
        await asked(client)
        run = (await home.status("notebook"))["instance"]
        await client.jetstream().publish("vx11.events.notebook.slept", json.dumps({"actor": "notebook", "run": run}).encode())
        assert "lines" in await asked(client)
    assert (await home.states())["notebook"] == "active"
