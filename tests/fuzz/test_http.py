"""Raw bytes at the HTTP door: an answer with a code or a closed connection, never a 500, and nothing is done by stealth."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from schemas.errors import CODES
from tests.e2e.house import House
from tests.fuzz.http_cases import CASES, HOST, KEY, SLOW, Case
from tests.fuzz.wire_of_http import Answer, abort, exchanged

LAST = b"GET /health HTTP/1.1\r\n" + HOST + b"X-Correlation-Id: the-last-one\r\nConnection: close\r\n\r\n"
PIECE_S = 0.1
"""Between two pieces; an honest sender that is slow, or a slow loris: its clock is ten times that."""
ran: set[Case] = set()


def port(home: House) -> int:
    return int(home.door.rsplit(":", 1)[1])


def written(home: House) -> Counter[str]:
    """How often each mark was begun to be written."""
    file = home.home / "notebook.begun"
    return Counter(file.read_text().splitlines() if file.exists() else ())


async def answers_to(home: House, case: Case) -> list[Answer]:
    pieces = case.pieces if case.alone else (*case.pieces[:-1], case.pieces[-1] + LAST)
    found = await exchanged(port(home), pieces, PIECE_S, half=case.half, bodiless=case.bodiless)
    last = [answer for answer in found if answer.headers.get("x-correlation-id") == "the-last-one"]
    assert len(last) == (0 if case.shut else 1), f"the connection was left {'open' if case.shut else 'closed'}: {found}"
    return [answer for answer in found if answer not in last]


def check(home: House, case: Case, found: list[Answer]) -> None:
    statuses = [answer.status for answer in found]
    right = len(found) == len(case.answers) and all(s in may for s, may in zip(statuses, case.answers, strict=True))
    assert right or (case.silent and not found), f"{statuses}, not {case.answers}: {found}"
    for answer in found:
        if answer.status >= 400 and not case.bodiless:
            told = json.loads(answer.body)
            assert (told["status_code"], CODES[told["error"]].status) == (answer.status, answer.status)
    assert written(home)[case.name] <= case.written
    ran.add(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_garbage_is_answered_or_cut_off(home: House, case: Case) -> None:
    """And the door is as good as before for the next one."""
    check(home, case, await answers_to(home, case))
    assert (await home.get("/health", token=None)).status == 200


async def test_the_slow_are_cut_off(home: House) -> None:
    """All at once: the clocks of the door are then waited for once."""
    for case, found in zip(SLOW, await asyncio.gather(*(answers_to(home, case) for case in SLOW)), strict=True):
        check(home, case, found)
    assert (await home.get("/health", token=None)).status == 200


async def test_those_who_leave_early_hold_nothing(home: House) -> None:
    """In the middle of a head, of a body, and before their answer."""
    whole = b"GET /api/map HTTP/1.1\r\n" + HOST + KEY + b"\r\n"
    for case in CASES:
        for data in (case.pieces[0][: len(case.pieces[0]) // 2], whole):
            _, writer = await asyncio.open_connection("127.0.0.1", port(home))
            writer.write(data)
            await abort(writer)
    assert (await home.get("/api/map")).status == 200


def test_in_the_end_each_was_done_as_often_as_it_was_asked_for(home: House) -> None:
    """What was smuggled may come late, but not at all."""
    marks = written(home)
    for case in ran:
        assert case.written or not marks[case.name], case.name
