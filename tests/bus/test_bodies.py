"""What is recorded of the bodies of calls: only where it was chosen, without secrets, bounded, and whole or not at all."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from bus import bodies, recorder
from bus.actor import Actor
from bus.bodies import Bodies
from bus.loading import as_told, check_told
from bus.recorder import Recorder
from bus.settings import Settings
from schemas.errors import Failure
from schemas.message import Message, Request, Secret
from tests.bus.bakery import serving
from tests.bus.shop import until
from tests.bus.test_recorder import NOW, calls

__all__ = ["calls"]


class Door(Message):
    name: str = ""
    code: Secret = ""


class Opened(Message):
    session_token: str
    note: str = ""
    doors: list[Door] = []


class Enter(Request[Opened]):
    subject: ClassVar = "vx11.baker.enter"

    user: str
    password: Secret = ""
    door: Door | None = None
    key: Annotated[str, Field(json_schema_extra={"secret": False})] = ""
    api_key: str = ""


def document(request: object, reply: object = None, *, ok: bool = True) -> dict:
    spoken = Bodies(Enter, json.dumps(request).encode(), json.dumps(reply or {"session_token": ""}).encode(), ok)
    return spoken.document()


@pytest.fixture
async def recorded(nats_server, calls):
    """What a baker answers, and the records of it."""
    got, _ = calls
    async with serving(nats_server, record="full") as baker:

        async def ask(verb, body, **headers):
            await baker.ask(verb, body, **headers)
            baker.responder.recorder.flush()
            await until(lambda: got)
            return got.pop()[1]

        yield ask


async def test_request_and_reply_are_recorded_where_it_was_chosen(recorded):
    record = await recorded("bake", {"n": 3})
    assert (record["request"], record["reply"], record["truncated"], record["hidden"]) == ({"n": 3}, {"n": 3}, False, False)


async def test_by_default_no_body_is_recorded(nats_server, calls):
    got, _ = calls
    async with serving(nats_server) as baker:
        await baker.ask("bake", {"n": 3})
        baker.responder.recorder.flush()
        await until(lambda: got)
    assert not {"request", "reply", "hidden"} & got[0][1].keys()


async def test_a_request_is_recorded_as_it_came_not_with_todays_defaults(recorded):
    """Replayed, it must meet the defaults of then as they are now."""
    assert (await recorded("bake", b""))["request"] == {}


async def test_a_streamed_answer_is_recorded_as_its_whole(recorded):
    record = await recorded("slice", {"n": 3}, vx11_stream="1")
    assert record["reply"] == {"n": 3}


async def test_a_secret_field_is_not_recorded(recorded):
    record = await recorded("login", {"user": "ana", "password": "hunter2"})
    assert record["request"] == {"user": "ana", "password": "***"}
    assert record["hidden"] is True


async def test_a_refused_request_is_recorded_without_its_body(recorded):
    """It does not fit its class, so nobody knows which of its fields are secret."""
    record = await recorded("login", {"user": "ana", "passwrd": "hunter2"})
    assert record["code"] == "invalid"
    assert "hunter2" not in json.dumps(record)


def test_secrets_in_the_depth_of_a_message_are_not_recorded():
    made = document(
        {"user": "ana", "door": {"name": "front", "code": "hunter2"}},
        {"session_token": "hunter2", "doors": [{"code": "hunter2"}, {"code": ""}]},
    )
    assert made["request"] == {"user": "ana", "door": {"name": "front", "code": "***"}}
    assert made["reply"] == {"session_token": "***", "doors": [{"code": "***"}, {"code": ""}]}


def test_a_name_hides_unless_the_class_says_that_it_is_no_secret():
    made = document({"user": "ana", "key": "C sharp", "api_key": "hunter2"})
    assert made["request"] == {"user": "ana", "key": "C sharp", "api_key": "***"}


def test_who_writes_stars_has_hidden_nothing():
    assert document({"user": "***"})["hidden"] is False


def test_an_error_is_recorded_as_it_was_answered():
    made = document({"user": "ana"}, {"error": "forbidden", "message": "no", "token": "hunter2"}, ok=False)
    assert made["reply"] == {"error": "forbidden", "message": "no", "token": "***"}


def test_what_is_too_long_is_left_out_and_the_record_says_so():
    made = document({"user": "x" * bodies.BYTES_MOST}, {"session_token": "", "note": "short"})
    assert made == {"truncated": True, "reply": {"session_token": "", "note": "short"}}


def test_a_reply_that_does_not_fit_its_class_is_left_out():
    assert document({"user": "ana"}, {"sesion_token": "hunter2"}) == {
        "truncated": True,
        "request": {"user": "ana"},
        "hidden": False,
    }


async def test_bodies_that_wait_are_bounded_and_what_is_over_says_so(calls):
    got, wire = calls
    made = Recorder(wire, "baker", "run1")
    body = json.dumps({"user": "x" * 60_000}).encode()
    many = recorder.WAITING_BYTES_MOST // len(body) + 3
    for _ in range(many):
        made.record(
            "enter",
            {},
            received=NOW,
            took_ms=1.0,
            held_ms=0,
            code="ok",
            bodies=Bodies(Enter, body, b'{"session_token": ""}', True),
        )
    await until(lambda: len(got) == many)
    assert sum("request" in record for _, record in got) == recorder.WAITING_BYTES_MOST // (len(body) + 21)
    assert [record["truncated"] for _, record in got][-1] is True
    assert made._waiting_bytes == 0


@pytest.mark.parametrize(
    ("variables", "record"),
    [({}, "meta"), ({"VX11_RECORD": "full"}, "full"), ({"VX11_RECORD": "full", "VX11_RECORD_MY_BAKER": "meta"}, "meta")],
)
def test_the_operator_has_the_last_word_on_what_is_recorded(tmp_path, variables, record):
    assert as_told(Actor("my-baker", summary="bakes"), Settings(tmp_path, variables)).record == record


def test_an_author_may_choose_for_his_actor(tmp_path):
    assert as_told(Actor("baker", summary="bakes", record="full"), Settings(tmp_path)).record == "full"
    with pytest.raises(TypeError, match="it is meta or full"):
        Actor("baker", summary="bakes", record="all")


def test_a_word_that_means_nothing_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(Failure, match="VX11_RECORD_BAKER='yes'; write VX11_RECORD_BAKER=meta or VX11_RECORD_BAKER=full"):
        check_told(Settings(tmp_path, {"VX11_RECORD_BAKER": "yes"}))
