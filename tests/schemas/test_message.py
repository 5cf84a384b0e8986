"""The message classes: one address each, immutable, strict where a mistake would be silent."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from schemas.errors import CODES, Failure
from schemas.message import RECORDED, RESERVED, Event, Message, Nothing, Request, Secret, Streamed, secret_fields


class Loaf(Message):
    grams: int


class Crumb(Message):
    n: int


class Bake(Request[Loaf]):
    subject: ClassVar = "vx11.baker.bake"

    grams: int = 500


class Slice(Streamed[Crumb, Loaf]):
    subject: ClassVar = "vx11.baker.slice"


class Thin(Slice):
    subject: ClassVar = "vx11.baker.thin"


class Sold(Event):
    subject: ClassVar = "vx11.events.shop.sold"
    summary: ClassVar = "{number} sold to {who}"

    number: int
    who: str = "somebody"


def test_a_request_knows_its_address_and_its_reply():
    assert (Bake.addressee(), Bake.verb_name(), Bake.reply_type()) == ("baker", "bake", Loaf)
    assert (Slice.chunk_type(), Slice.reply_type()) == (Crumb, Loaf)


def test_a_request_that_extends_another_has_its_reply():
    assert (Thin.chunk_type(), Thin.reply_type(), Thin.verb_name()) == (Crumb, Loaf, "thin")


def test_a_message_is_immutable():
    with pytest.raises(ValidationError):
        Loaf(grams=1).grams = 2


def test_a_field_that_nobody_declared_is_refused_in_a_request_and_kept_in_an_event():
    """A misspelt field must not be silence; an event of a later version must not be lost."""
    with pytest.raises(ValidationError):
        Bake.model_validate({"gramms": 5})
    assert Sold.model_validate({"number": 1, "later": True}).model_dump()["later"] is True


def test_an_event_tells_itself_in_one_line():
    assert Sold(number=3).told() == "3 sold to somebody"

    class Quiet(Event):
        subject: ClassVar = "vx11.events.shop.closed"

    assert Quiet().told() == "Quiet"


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "baker.bake",
        "vx11.baker",
        "vx11.baker.bake.more",
        "vx12.baker.bake",
        "vx11.events.bake",
        "vx11.baker._bake",
        "vx11.baker.Bake",
        "vx11.baker.ba ke",
        "vx11.ba ker.bake",
        "vx11.*.bake",
        *(f"vx11.{name}.bake" for name in sorted(RESERVED)),
    ],
)
def test_a_request_with_an_impossible_subject_is_refused_where_it_is_written(subject):
    with pytest.raises(TypeError, match="subject"):
        type("Bad", (Request[Loaf],), {"subject": subject, "__annotations__": {"subject": ClassVar[str]}})


@pytest.mark.parametrize("subject", ["vx11.shop.sold", "vx11.events.sold", "vx11.events.shop.Sold", "vx11.events.calls.sold"])
def test_an_event_with_an_impossible_subject_is_refused(subject):
    with pytest.raises(TypeError, match="subject"):
        type("Bad", (Event,), {"subject": subject, "__annotations__": {"subject": ClassVar[str]}})


def test_power_events_are_the_exception():
    made = type("Fine", (Event,), {"subject": "vx11.events.power.woken", "__annotations__": {"subject": ClassVar[str]}})
    assert made.subject == "vx11.events.power.woken"


def test_a_severity_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match="one of debug, info, warning, error"):
        type("Bad", (Event,), {"subject": "vx11.events.shop.sold", "severity": "loud"})


def test_a_request_without_a_reply_is_refused_when_it_is_asked_for():
    class Bad(Request):
        subject: ClassVar = "vx11.baker.bad"

    with pytest.raises(TypeError, match="must name its reply"):
        Bad.reply_type()


def test_secret_fields_are_known_and_do_not_show():
    class Login(Request[Nothing]):
        subject: ClassVar = "vx11.baker.login"

        user: str
        password: Secret
        pin: Secret | None = None
        words: list[Secret] = []
        by_name: dict[str, Secret] = {}

    assert secret_fields(Login) == {"password", "pin", "words", "by_name"}
    made = Login(user="ana", password="hunter2", pin="hunter3", words=["hunter4"], by_name={"a": "hunter5"})
    assert repr(made) == "Login(user='ana', password='***', pin='***', words='***', by_name='***')"
    assert made.model_dump(mode="json", context=RECORDED) == {
        "user": "ana",
        "password": "***",
        "pin": "***",
        "words": ["***"],
        "by_name": {"a": "***"},
    }
    assert made.model_dump()["pin"] == "hunter3", "it travels as it is"


def test_an_error_code_outside_the_vocabulary_is_a_mistake_of_the_author():
    with pytest.raises(ValueError, match="is no error code"):
        Failure("oops", "x")


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_failure_travels_and_comes_back_as_itself(code):
    sent = Failure(code, "what happened", retry_after=3)
    back = Failure.from_document(sent.document("conversation-1"))
    assert (back.code, back.message, back.status) == (sent.code, sent.message, CODES[code].status)
    assert back.details == {"retry_after": 3, "correlation_id": "conversation-1"}


def test_codes_that_promise_that_nothing_was_executed_are_the_ones_that_are_decided_before_it():
    """A caller may send these again plainly: a wrong one among them is a second execution."""
    sure = {code for code, row in CODES.items() if not row.executed}
    assert sure.isdisjoint({"timeout", "crashed", "internal", "cancelled", "conflict", "not_found"})
    assert {"busy", "waking", "unavailable", "off_by_policy", "invalid"} <= sure
