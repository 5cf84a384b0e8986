"""Dead letters by HTTP: the keeper is asked, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from gateway.http.lines import address_of
from schemas.dead import Dead, DeadDropped, DeadLetter, DeadList, DeadRetried, DropDead, GetDead, ListDead, RetryDead, Tried
from schemas.errors import Failure

LETTER = Dead(
    sequence=7, actor="shop", subject="vx11.events.shop.sold", reason="failed", consumer="shop__note", size=2, buried_at="now"
)


async def test_the_list_is_asked_for_with_the_filters_of_the_query(link):
    link.bus.answers[ListDead.subject] = DeadList(letters=[LETTER], total=1)
    answer = await link.get("/operator/api/dlq?actor=shop&reason=failed&since=2026-01-02T03:04:05Z&limit=5&after=6")
    assert answer.json["letters"][0]["sequence"] == 7
    [asked] = link.bus.of(ListDead.subject)
    assert ListDead.model_validate_json(json.dumps(asked.body)) == ListDead(
        actor="shop", reason="failed", since=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), limit=5, after=6
    )


async def test_a_letter_is_shown_piece_by_piece(link):
    link.bus.answers[GetDead.subject] = DeadLetter(letter=LETTER, body="{}")
    assert (await link.get("/operator/api/dlq/7?offset=3")).json["body"] == "{}"
    [asked] = link.bus.of(GetDead.subject)
    assert GetDead.model_validate(asked.body) == GetDead(sequence=7, offset=3)


async def test_retrying_and_dropping_need_the_right_to_command(link):
    link.bus.answers[RetryDead.subject] = DeadRetried(sequence=7, subject=LETTER.subject)
    link.bus.answers[DropDead.subject] = DeadDropped(letter=LETTER)
    reader, chief = link.new_token("read"), link.new_token("command")
    for path, body in (("retry", None), ("drop", {"reason": "a test"})):
        assert (await link.post(f"/operator/api/dlq/7/{path}", body, token=reader)).status == 403
        assert (await link.post(f"/operator/api/dlq/7/{path}", body, token=chief)).status == 200
    assert [DropDead.model_validate(one.body).reason for one in link.bus.of(DropDead.subject)] == ["a test"]


async def test_a_letter_is_not_dropped_without_a_reason(link):
    answer = await link.post("/operator/api/dlq/7/drop", {})
    assert (answer.status, answer.json["field"]) == (400, "reason")
    assert link.bus.of(DropDead.subject) == []


@pytest.mark.parametrize("number", ["0", "-1", "x", "1e3", "9" * 30, "%D9%A1"])
async def test_what_is_no_number_of_a_letter_is_not_found(link, number):
    assert (await link.post(f"/operator/api/dlq/{number}/retry")).status == 404


async def test_what_the_keeper_refuses_is_told_as_it_says_it(link):
    link.bus.answers[RetryDead.subject] = Failure("conflict", "nobody would hear it")
    answer = await link.post("/operator/api/dlq/7/retry")
    assert (answer.status, answer.json["message"]) == (409, "nobody would hear it")


async def test_the_command_line_of_another_machine_reaches_the_keeper_like_an_actor(link):
    """It has no card; `vx11 dlq ls` with VX11_URL asks `/call/keeper/list_dead`."""
    link.bus.answers[ListDead.subject] = DeadList(letters=[LETTER], total=1)
    assert (await link.post("/call/keeper/list_dead", {"actor": "shop"})).json["total"] == 1
    for verb, body in (("list_dead", {"nobody": 1}), ("drop_dead", {"sequence": 1})):
        assert (await link.post(f"/call/keeper/{verb}", body)).status == 400
    assert (await link.post("/call/keeper/dance", {})).json["error"] == "not_found"
    assert len(link.bus.of(ListDead.subject)) == 1


async def test_a_token_needs_the_scope_of_the_keepers_verb(link):
    link.bus.answers[ListDead.subject] = DeadList(letters=[])
    commander = link.new_token("command")
    assert (await link.post("/call/keeper/accept", {"reason": "x"}, token=commander)).status == 403


def test_a_try_is_shown_among_the_events_as_one_of_its_actor():
    assert address_of("vx11.events.dlq.tried.shop__note.4-17") == ("shop", "tried", Tried.subject)
    assert address_of("vx11.events.dlq.again.shop__note.4-17") == ("shop", "again", "vx11.events.dlq.again")
    made = Tried(consumer="shop__note", origin="vx11.events.shop.sold", sequence=4, number=2, error="KeyError('x')")
    assert made.told() == "try 2 of vx11.events.shop.sold by shop__note failed: KeyError('x')"
    assert made.model_copy(update={"number": 0}).told() == "shop__note handed vx11.events.shop.sold back untried"
