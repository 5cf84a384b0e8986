"""When a request may be asked again, and what its end is called: decided without a clock of its own."""

from __future__ import annotations

import json

import pytest

from bus import asking as module
from bus import call
from bus.asking import Asking, failure_of
from schemas.errors import CODES, Failure

NOW = 1_000.0


def made(**options) -> Asking:
    settings = {"headers": {}, "deadline": NOW + 10} | options
    return Asking("vx11.shop.ask", b"{}", settings.pop("headers"), idempotent=False, sent_at=NOW, **settings)


def test_the_actor_is_the_second_token():
    assert made().actor == "shop"
    assert Asking("nonsense", b"", {}, False, NOW, NOW).actor == ""


def test_it_is_asked_again_ever_more_slowly_but_at_least_four_times_a_second():
    asked = made()
    pauses = [asked.nobody_listens(NOW) for _ in range(9)]
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert set(pauses[5:]) == {module.NOBODY_MOST_S}


def test_it_is_not_asked_after_its_deadline():
    asked = made(deadline=NOW + 0.005)
    assert asked.nobody_listens(NOW) == pytest.approx(0.005)
    assert asked.nobody_listens(NOW + 1) == 0.0


def test_many_refusals_in_a_row_are_no_overflow():
    asked = made(nobody=2_000)
    assert asked.nobody_listens(NOW) == module.NOBODY_MOST_S


def test_a_reconnect_makes_the_next_sending_a_repeat_however_often_it_happens():
    asked = made()
    assert [asked.lost_sight(crash=False) for _ in range(5)] == [None] * 5
    assert asked.headers[call.AGAIN] == "1"


def test_one_death_is_a_repeat_and_two_are_the_end():
    asked = made()
    assert asked.lost_sight(crash=True) is None
    assert asked.headers[call.AGAIN] == "1"
    assert asked.lost_sight(crash=True).code == "crashed"


def test_a_stream_that_has_begun_ends_with_the_first_death():
    asked = made(chunks=1)
    assert asked.lost_sight(crash=True).code == "crashed"


def test_what_nobody_had_ends_unavailable_and_all_else_as_unknown():
    """`unavailable` promises that it was surely not executed."""
    fresh, refused, repeated = made(), made(), made()
    refused.nobody_listens(NOW)
    repeated.lost_sight(crash=False)
    repeated.nobody_listens(NOW)
    assert [asked.late().code for asked in (fresh, refused, repeated)] == ["timeout", "unavailable", "timeout"]
    assert (CODES["unavailable"].executed, CODES["timeout"].executed) == (False, True)


def test_pieces_are_counted_and_a_gap_is_crashed():
    asked = made()
    for n in range(3):
        asked.take({call.SEQ: str(n)}, b"{}")
    with pytest.raises(Failure, match="after the first 3"):
        asked.take({call.SEQ: "4"}, b"{}")


def test_a_good_answer_is_no_failure():
    assert failure_of({}, b'{"error": "this is a field of the reply"}') is None


def test_the_failure_is_that_of_the_document_with_how_long_it_waited():
    document = Failure("busy", "full", retry_after=1).document("c1")
    failure = failure_of({call.ERROR: "busy: full", call.WAKE_MS: "8"}, json.dumps(document).encode())
    assert (failure.code, failure.message) == ("busy", "full")
    assert failure.details == {"retry_after": 1, "correlation_id": "c1", "wake_ms": 8}


@pytest.mark.parametrize("body", [b"", b"\xff", b"1", b"null", b'"text"', b"{}"])
def test_an_error_without_a_document_is_internal(body):
    assert failure_of({call.ERROR_CODE: "500"}, body).code == "internal"


def test_a_code_of_a_later_version_is_internal_and_named():
    failure = failure_of({call.ERROR: "x"}, b'{"error": "teapot", "message": "short and stout"}')
    assert (failure.code, failure.message) == ("internal", "teapot: short and stout")
