"""An actor of one's own: written by a command, called, edited, broken and mended, and nothing is ever restarted."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.command import Vx11
from tests.e2e.house import House, Reply, until

WAIT_S = 15.0
"""Noticing an edit, importing the actor, letting the old instance leave."""
NOTICED_S = 4.0
"""Of an edit until its answer, the start of the command line included, on a busy machine."""
NAME = re.compile(r'f"(.*), ')


@pytest.fixture(scope="module")
def vx11(home: House) -> Vx11:
    return Vx11(home)


@pytest.fixture(scope="module")
def greeter(home: House, vx11: Vx11) -> Path:
    """Its source file."""
    vx11("new", "actor", "greeter")
    return home.home / "actors" / "greeter" / "actor.py"


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def append(file: Path, text: str) -> None:
    file.write_text(f"{file.read_text()}\n\n{text}\n")


def reword(file: Path, word: str) -> None:
    """Let it greet with another word."""
    rewrite(file, f'f"{NAME.search(file.read_text())[1]}, ', f'f"{word}, ')


def lines(file: Path, *, before: str = "") -> int:
    """How many there are, up to `before`."""
    text = file.read_text()
    return (text[: text.index(before)] if before else text).count("\n")


@contextmanager
def spoilt(file: Path, make: Callable[[str], str]) -> Iterator[None]:
    """What `make` makes of the file's text in its place, and then its own again."""
    good = file.read_text()
    file.write_text(make(good))
    try:
        yield
    finally:
        file.write_text(good)


async def greet(home: House) -> Reply:
    return await home.post("/call/greeter/greet", {"name": "Ana"})


async def until_answered(home: House, so: Callable[[Reply], object], what: str) -> Reply:
    """Ask until the answer is the one that is waited for."""
    last: list[Reply] = []

    async def met() -> bool:
        last[:] = [await greet(home)]
        return bool(so(last[0]))

    await until(met, f"the answer is {what}", WAIT_S)
    return last[0]


async def until_good(home: House, word: str = "") -> None:
    """Its source is in order, as far as madre knows, and the answer is the one of its source."""

    async def in_order() -> bool:
        return "Error" not in (await home.status("greeter"))["reason"]

    await until(in_order, "its source is in order", WAIT_S)
    await until_answered(home, lambda answer: answer.status == 200 and word in answer.json["text"], word or "good")


async def until_known(home: House, text: str) -> None:
    """madre knows what is wrong."""

    async def known() -> bool:
        return text in (await home.status("greeter"))["reason"]

    await until(known, f"madre knows of {text!r}", WAIT_S)


async def until_told(home: House, text: str, status: int = 503) -> Reply:
    return await until_answered(home, lambda answer: answer.status == status and text in answer.text, f"{status} {text}")


async def test_a_new_actor_is_known_once_the_command_has_come_back(vx11: Vx11, home: House) -> None:
    """So that two lines of a script may follow each other."""
    for name in ("first", "second", "third"):
        vx11("new", "actor", name)
        assert (await home.post(f"/call/{name}/greet", {"name": "Ana"})).json == {"text": "Hello, Ana!"}


def test_a_new_actor_answers_at_once(vx11: Vx11, greeter: Path) -> None:
    assert vx11("call", "greeter.greet", "name=Ana").json == {"text": "Hello, Ana!"}


async def test_it_is_there_for_everybody(vx11: Vx11, home: House, greeter: Path) -> None:
    """Nobody edits the gateway, and nobody's list."""
    await until_good(home)
    assert "greeter" in [actor["name"] for actor in vx11("status", "--json").json["actors"]]
    assert "greeter" in [node["id"] for node in (await home.get("/api/map")).json["nodes"]]
    assert (await home.post("/call/greeter/describe")).json["card"]["name"] == "greeter"


def test_a_wrong_field_is_told_with_the_right_ones(vx11: Vx11, greeter: Path) -> None:
    ran = vx11.run("call", "greeter.greet", "nmae=Ana")
    assert ran.code == 65
    assert "did you mean name?" in ran.err


@pytest.mark.parametrize(("state", "word"), [("wake", "Good morning"), ("sleep", "Good evening")], ids=["awake", "asleep"])
async def test_after_an_edit_a_call_has_the_new_answer(vx11: Vx11, home: House, greeter: Path, state: str, word: str) -> None:
    """An edit is noticed in a quarter of a second. The instance of the old code finishes what it has, and leaves."""
    await until_good(home)
    await home.order(state, name="greeter")
    reword(greeter, word)
    begun = time.monotonic()
    await until(lambda: vx11("call", "greeter.greet", "name=Ana").json["text"] == f"{word}, Ana!", "the answer is new")
    assert time.monotonic() - begun < NOTICED_S


async def test_an_edit_that_takes_back_the_last_one_is_noticed_too(home: House, greeter: Path) -> None:
    for word in ("Hello", "Hi", "Hello"):
        reword(greeter, word)
        await until_good(home, f"{word}, Ana")


async def test_an_edit_that_changes_neither_length_nor_second_is_noticed_too(home: House, greeter: Path) -> None:
    """What Python keeps compiled is known by these two alone, and must not be mistaken for the new code."""
    second = int(time.time()) * 1_000_000_000
    for count, word in enumerate(("Hallo", "Hullo", "Hello")):
        reword(greeter, word)
        os.utime(greeter, ns=(second + count, second + count))
        await until_good(home, f"{word}, Ana")


async def test_an_edit_while_the_last_one_is_being_looked_at_is_noticed_too(home: House, greeter: Path) -> None:
    """An editor may write twice."""
    for count in range(40):
        reword(greeter, f"Hello {count}")
        await home.get("/health")
    await until_good(home, "Hello 39, Ana")


async def test_an_edit_loses_no_request(home: House, greeter: Path) -> None:
    """Asked without a pause all the way through it: each answer is the old one or the new one."""
    await until_good(home)
    reword(greeter, "Good night")
    seen: list[str] = []

    async def new() -> bool:
        answer = await greet(home)
        assert answer.status == 200, answer.text
        seen.append(answer.json["text"])
        return seen[-1] == "Good night, Ana!"

    await until(new, "the new answer is there", WAIT_S)
    assert set(seen) <= {"Hello 39, Ana!", "Good night, Ana!"}


async def test_a_new_verb_can_be_called_once_it_is_written(home: House, greeter: Path) -> None:
    part = 'class Part(Request[GreetReply]):\n    """Say goodbye."""\n\n    subject: ClassVar = "vx11.greeter.part"'
    append(greeter.with_name("schema.py"), part)
    rewrite(greeter, "import Greet, GreetReply", "import Greet, GreetReply, Part")
    append(greeter, '@actor.handles\nasync def part(request: Part) -> GreetReply:\n    return GreetReply(text="Goodbye!")')

    async def parted() -> bool:
        return (await home.post("/call/greeter/part")).status == 200

    await until(parted, "the new verb answers", WAIT_S)


async def test_a_syntax_error_is_told_with_file_and_line_and_mending_it_heals(vx11: Vx11, home: House, greeter: Path) -> None:
    where = f"greeter/actor.py, line {lines(greeter, before='return GreetReply(') + 1}"
    with spoilt(greeter, lambda text: text.replace("return GreetReply(", "return return GreetReply(", 1)):
        await until(lambda: "SyntaxError" in vx11.run("call", "greeter.greet", "name=Ana").err, "the call tells of it", WAIT_S)
        broken = vx11.run("call", "greeter.greet", "name=Ana")
        assert broken.code == 69
        assert where in broken.err
        (status,) = [one for one in vx11("status", "--json").json["actors"] if one["name"] == "greeter"]
        assert where in status["reason"]
        assert where in (await home.chat("why is greeter asleep?")).json["response"]
    await until_good(home, "Good night")


async def test_what_is_broken_is_unavailable_by_every_door(home: House, greeter: Path) -> None:
    """Also to those who know nothing of cards; the verbs of an actor that cannot be loaded are not `not found`."""
    await home.sleep("greeter")
    with spoilt(greeter, lambda _: "def"):
        await until_known(home, "greeter/actor.py, line 1")
        by_http = await greet(home)
        by_bus = await plain(home)
    assert (by_http.status, by_http.json["error"], by_bus["error"]) == (503, "unavailable", "unavailable")
    for told in (by_http.json, by_bus):
        assert "greeter/actor.py, line 1" in told["message"]
    await until_good(home)


async def test_an_instance_of_good_code_goes_on_serving_while_its_source_is_broken(home: House, greeter: Path) -> None:
    """Half an edit takes nobody's service away."""
    await until_good(home)
    with spoilt(greeter, lambda _: "def"):
        await until_known(home, "greeter/actor.py, line 1")
        assert await plain(home) == {"text": "Good night, Ana!"}
    await until_good(home)


async def plain(home: House) -> dict:
    """The answer that a stock client gets."""
    async with home.stock() as client:
        return json.loads((await client.request("vx11.greeter.greet", b'{"name": "Ana"}', timeout=5.0)).data)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there' (greeter/actor.py, line %d)"),
        ("raise RuntimeError('out of paper')", "RuntimeError: out of paper (greeter/actor.py, line %d)"),
        ("actor = None", "must declare"),
        (
            "@actor.handles\nasync def again(request: Greet) -> GreetReply: ...",
            "has a handler already (greeter/actor.py, line %d)",
        ),
        ("import os; os._exit(7)", "its process ended while it was imported"),
        ("import sys; sys.exit('no')", "SystemExit: no (greeter/actor.py, line %d)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
    ids=["an import", "an exception", "no actor", "two handlers", "a hard exit", "an exit", "an interrupt"],
)
async def test_whatever_is_wrong_with_an_actor_is_told_and_hurts_nobody_else(
    home: House, greeter: Path, mistake: str, told: str
) -> None:
    line = lines(greeter) + 3
    await home.sleep("greeter")
    with spoilt(greeter, lambda text: f"{text}\n\n{mistake}\n"):
        await until_known(home, told.replace("%d", str(line)))
        assert told.replace("%d", str(line)) in (await greet(home)).json["message"]
        assert (await home.post("/call/notebook/list_lines")).status == 200
    await until_good(home)


async def test_an_import_that_waits_for_something_can_be_mended(home: House, greeter: Path) -> None:
    """A later edit is looked at although the process that imports the earlier one has not come to an end."""
    await until_good(home)
    began = greeter.with_name("began")
    waits = f"\nimport pathlib, time\n\npathlib.Path({str(began)!r}).touch()\ntime.sleep(3600)\n"
    with spoilt(greeter, lambda text: text + waits):
        await until(began.exists, "the import has begun", WAIT_S)
        began.unlink()
        assert (await greet(home)).status == 200, "the old code serves while the new one is being imported"
    reword(greeter, "Good noon")
    await until_good(home, "Good noon")


async def test_a_file_that_was_missing_may_come(home: House, greeter: Path) -> None:
    """Mending is not only editing what is there."""
    await home.sleep("greeter")
    helper = greeter.with_name("paper.py")
    with spoilt(greeter, lambda text: text + "\nimport greeter.paper\n"):
        await until_known(home, "greeter.paper")
        helper.write_text('"""Paper."""\n')
        await until_good(home)
    helper.unlink()
    await until_good(home)


async def test_an_actor_that_ends_while_it_wakes_is_told_of(home: House, greeter: Path) -> None:
    """Its card is good, its first step is not: whoever asks is told, and soon."""
    resource = """

class Paper: ...


@actor.resource
async def paper() -> AsyncIterator[Paper]:
    raise RuntimeError("the paper is out")
    yield Paper()
"""
    head = "from collections.abc import AsyncIterator\n\nfrom bus import"
    with spoilt(greeter, lambda text: text.replace("from bus import", head, 1) + resource):
        broken = await until_told(home, "cannot be woken")
        assert "greeter.log" in broken.json["message"]
        assert "the paper is out" in (home.home / "logs" / "greeter.log").read_text()
    await until_good(home)


async def test_a_handler_that_fails_is_an_internal_error_with_the_reason_in_the_log(home: House, greeter: Path) -> None:
    """The unexpected is logged whole and shown as nothing; the correlation id leads from one to the other."""
    with spoilt(greeter, lambda text: text.replace("return GreetReply(text=f", "raise RuntimeError('a secret')  # ", 1)):
        answer = await until_told(home, "internal", 500)
        assert "secret" not in answer.text
        log = (home.home / "logs" / "greeter.log").read_text()
        assert answer.json["correlation_id"] in log
        assert "a secret" in log
    await until_good(home)


async def test_a_removed_actor_is_gone(home: House, greeter: Path) -> None:
    """The last test of its file."""
    await home.sleep("greeter")
    for file in greeter.parent.glob("*.py"):
        file.unlink()
    await until_answered(home, lambda answer: answer.status in (404, 503), "gone")
    assert (await home.post("/call/notebook/list_lines")).status == 200
