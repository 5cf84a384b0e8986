"""`vx11 dlq`: what is shown of dead letters, and what is asked of the keeper."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from schemas.dead import Dead, DeadDropped, DeadLetter, DeadList, DeadRetried
from schemas.errors import Failure

LIST, GET, RETRY, DROP = (f"vx11.keeper.{verb}_dead" for verb in ("list", "get", "retry", "drop"))


def letter(sequence: int, **more: Any) -> Dead:
    made = {"actor": "shop", "subject": "vx11.events.shop.sold", "reason": "failed", "consumer": "shop__note", "size": 2}
    return Dead(sequence=sequence, buried_at="2026-01-02T03:04:05.000Z", **(made | more))


def dumped(message: Any) -> dict[str, Any]:
    return message.model_dump(mode="json")


@pytest.fixture
def with_letters(remote) -> None:
    """Three letters, two to a page."""

    def answer(asked):
        those = [one for one in (letter(1), letter(2, tries=5, detail="no\x1b[2J"), letter(9)) if one.sequence > asked["after"]]
        page = those[: min(2, asked["limit"])]
        return dumped(DeadList(letters=page, more=len(those) > len(page), next_after=page[-1].sequence, total=3))

    remote.answers[LIST] = answer
    remote.answers[RETRY] = lambda asked: dumped(DeadRetried(sequence=asked["sequence"], subject="vx11.events.shop.sold"))
    remote.answers[DROP] = lambda asked: dumped(DeadDropped(letter=letter(asked["sequence"])))


def test_the_list_goes_on_to_the_last_page(terminal, with_letters) -> None:
    lines = terminal("dlq", "ls").out.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [[n, "shop", "vx11.events.shop.sold"] for n in ("1", "2", "9")]


def test_what_an_event_says_does_not_steer_the_terminal(terminal, with_letters) -> None:
    assert "\x1b" not in terminal("dlq", "ls").out


def test_a_list_that_is_cut_off_says_so(terminal, with_letters) -> None:
    ran = terminal("dlq", "ls", "--limit", "2")
    assert len(ran.out.splitlines()) == 3
    assert "there are more" in ran.err
    assert terminal("dlq", "ls", "--limit", "2", "--json").document["more"] is True


def test_filters_are_the_keepers_to_apply(terminal, remote, with_letters) -> None:
    terminal("dlq", "ls", "--actor", "shop", "--reason", "invalid", "--since", "2026-01-02T03:04:05Z")
    (_, asked), *_ = remote.asked
    assert (asked["actor"], asked["reason"], asked["since"]) == ("shop", "invalid", "2026-01-02T03:04:05Z")


def test_since_may_be_a_duration_and_must_be_something(terminal, remote, with_letters) -> None:
    terminal("dlq", "ls", "--since", "2h")
    assert remote.asked[0][1]["since"].endswith("Z")
    ran = terminal("dlq", "ls", "--since", "yesterday")
    assert ran.code == 2
    assert "write for instance 2h" in ran.err


def shown(body: bytes, pieces: int = 1, encoding: str = "text"):
    def answer(asked):
        step = -(-len(body) // pieces)
        piece = body[asked["offset"] : asked["offset"] + step]
        text = piece.decode() if encoding == "text" else base64.b64encode(piece).decode()
        past = [{"try": 1, "at": "then", "error": "ConnectionError('x')"}]
        whole = letter(7, size=len(body), tries=3, detail="gave up", stream="VX11_EVENTS", stored_as=4)
        return dumped(
            DeadLetter(
                letter=whole, history=past, headers={"colour": "red"}, offset=asked["offset"], body=text, encoding=encoding
            )
        )

    return answer


def test_a_letter_is_shown_with_all_that_is_known_of_it(terminal, remote) -> None:
    remote.answers[GET] = shown(b'{"n": 1}')
    out = terminal("dlq", "show", "7").out
    for said in ("failed", "VX11_EVENTS 4", "shop__note", "gave up", "ConnectionError('x')", "colour: red", '{"n": 1}'):
        assert said in out
    assert "2 of 3 tries ended with their process" in out


def test_a_body_that_is_no_text_is_shown_in_hexadecimal_and_given_raw(terminal, remote) -> None:
    body = bytes(range(250)) * 3
    remote.answers[GET] = shown(body, pieces=3, encoding="base64")
    out = terminal("dlq", "show", "7").out
    assert "000002e0  " in out
    assert "61 62 63" in out
    assert base64.b64decode(terminal("dlq", "show", "7", "--json").document["body"]) == body
    assert [one["offset"] for _, one in remote.asked[:3]] == [0, 250, 500]


def test_numbers_are_retried_one_by_one_and_one_failure_keeps_none_of_the_others(terminal, remote, with_letters) -> None:
    good = remote.answers[RETRY]

    def answer(asked):
        if asked["sequence"] == 2:
            raise Failure("conflict", "nobody would hear it")
        return good(asked)

    remote.answers[RETRY] = answer
    ran = terminal("dlq", "retry", "1", "2", "9")
    assert [one["sequence"] for _, one in remote.asked] == [1, 2, 9]
    assert "2 of 3 retried" in ran.out
    assert "conflict: 2" in ran.err
    assert ran.code == 73


def test_all_letters_of_an_actor_are_retried_at_once(terminal, remote, with_letters) -> None:
    assert "3 of 3 retried" in terminal("dlq", "retry", "--actor", "shop").out
    assert [one["sequence"] for subject, one in remote.asked if subject == RETRY] == [1, 2, 9]


@pytest.mark.parametrize("words", [["retry"], ["drop", "--reason", "x"], ["retry", "1", "--all"]])
def test_nothing_is_done_to_all_letters_without_a_word(terminal, remote, with_letters, words) -> None:
    ran = terminal("dlq", *words)
    assert (ran.code, remote.asked) == (2, [])
    assert "say which" in ran.err


def test_dropping_needs_a_reason_and_passes_it_on(terminal, remote, with_letters) -> None:
    assert terminal("dlq", "drop", "1").code == 2
    terminal("dlq", "drop", "1", "9", "--reason", "a test sent them")
    assert remote.asked == [(DROP, {"sequence": n, "reason": "a test sent them"}) for n in (1, 9)]


def test_without_letters_it_says_so(terminal, remote) -> None:
    remote.answers[LIST] = dumped(DeadList(letters=[]))
    assert terminal("dlq", "ls").out == "no dead letters\n"
