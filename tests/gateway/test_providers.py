"""The providers at the door: looking wakes nobody, changing them is the administrator's."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Failure
from schemas.switch import ProviderList, ProviderStatus
from tests.gateway.conftest import Link
from tests.gateway.scripted import LIST, actor, listed
from tests.gateway.test_doors import is_error

ALL = "/operator/api/providers"
HOME = f"{ALL}/home"
LISTED = "vx11.switch.list_providers"
SET = "vx11.switch.set_provider"
REMOVE = "vx11.switch.remove_provider"
STATUS = ProviderStatus(name="home", url="http://127.0.0.1:11434/v1", models=["m"], configured=True)
LINES = {"url": "http://127.0.0.1:11434/v1", "model": "m"}
SECRET = "sk-canary-0123456789"


async def state(link: Link, name: str) -> None:
    link.bus.answers[LIST] = listed(actor("switch", name))
    link.parts.observed.stale()


async def admin(link: Link, method: str, path: str, **more: Any) -> Any:
    return await link.ask(method, path, token=link.new_token("admin"), **more)


async def test_a_sleeping_switch_is_never_asked(link: Link) -> None:
    await state(link, "dormant")
    assert (await link.get(ALL)).json == {"providers": [], "observed_at": None}
    assert is_error(await link.get(HOME), "unavailable")
    assert link.bus.of(LISTED) == []


async def test_what_it_said_last_is_told_while_it_sleeps(link: Link) -> None:
    link.bus.answers[LISTED] = ProviderList(providers=[STATUS])
    await state(link, "active")
    awake = (await link.get(ALL)).json
    await state(link, "dormant")
    assert (await link.get(ALL)).json == awake
    assert (await link.get(HOME)).json == awake["providers"][0]
    assert [one.headers["vx11-passive"] for one in link.bus.of(LISTED)] == ["1"]


async def test_while_madre_does_not_answer_nobody_is_woken(link: Link) -> None:
    await state(link, "active")
    await link.get("/madre/power/status")
    link.bus.answers[LIST] = Failure("unavailable", "madre is gone")
    link.parts.observed.stale()
    assert (await link.get(ALL)).json["observed_at"] is None
    assert link.bus.of(LISTED) == []


async def test_an_unknown_provider_is_not_found(link: Link) -> None:
    link.bus.answers[LISTED] = ProviderList(providers=[STATUS])
    await state(link, "active")
    assert is_error(await link.get(f"{ALL}/nobody"), "not_found")


async def test_putting_one_sends_its_lines_and_its_key(link: Link) -> None:
    link.bus.answers[SET] = STATUS
    reply = await admin(link, "PUT", HOME, body={"lines": LINES, "key": SECRET})
    assert (reply.status, reply.json["name"]) == (200, "home")
    assert SECRET not in reply.text
    assert link.bus.of(SET)[0].body == {"name": "home", "lines": LINES, "key": SECRET}


async def test_what_was_told_before_a_change_is_not_told_after_it(link: Link) -> None:
    link.bus.answers[LISTED] = ProviderList(providers=[])
    await state(link, "active")
    await link.get(ALL)
    link.bus.answers[SET] = STATUS
    await admin(link, "PUT", HOME, body={"lines": LINES})
    await state(link, "dormant")
    assert (await link.get(ALL)).json["observed_at"] is None


async def test_removing_one_answers_with_those_that_are_left(link: Link) -> None:
    link.bus.answers[REMOVE] = ProviderList(providers=[])
    reply = await admin(link, "DELETE", HOME)
    assert (reply.status, reply.json["providers"]) == (200, [])
    assert link.bus.of(REMOVE)[0].body == {"name": "home"}


async def test_what_switch_refuses_is_told_as_it_says(link: Link) -> None:
    link.bus.answers[SET] = Failure("invalid", "unknown line modle; did you mean model?")
    assert is_error(await admin(link, "PUT", HOME, body={"lines": {"modle": "x"}}), "invalid")


@pytest.mark.parametrize("body", [{}, {"lines": 3}, {"lines": LINES, "name": "other"}, {"lines": LINES, "more": 1}, []])
async def test_a_body_of_another_form_is_refused_at_the_door(link: Link, body: Any) -> None:
    assert is_error(await admin(link, "PUT", HOME, body=body), "invalid")
    assert link.bus.of(SET) == []


@pytest.mark.parametrize("scope", ["read", "chat", "command", "power"])
async def test_changing_is_for_administrators(link: Link, scope: str) -> None:
    for method in ("PUT", "DELETE"):
        assert is_error(await link.ask(method, HOME, token=link.new_token(scope), body={"lines": LINES}), "forbidden")
