"""`new actor`: a schema, an actor and a test that pass as they are written, to be changed from there."""

from __future__ import annotations

import keyword
import re
import shlex
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from gateway.cli.remote import Remote

if TYPE_CHECKING:
    from gateway.cli.remote import Remote

new = typer.Typer(help="Write something new to start from.", no_args_is_help=True)

NOTICED_S = 3.0
"""The host looks for new files four times a second and reads a card in a process of its own."""
LOOK_EVERY_S = 0.1
BUILT_IN = Path(__file__).parents[2] / "actors"
FOUND_S = 5.0
"""A host looks for new actors a few times a second, and then imports them."""
LOOK_EVERY_S = 0.05
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

CONFTEST = '''"""Makes the actors beside this file importable in their tests, as the host does when it wakes them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
'''

PACKAGE = Template('''"""The actor $name."""
''')

SCHEMA = Template('''"""What can be asked of $name."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from schemas.message import Message, Request


class GreetReply(Message):
    text: str


class Greet(Request[GreetReply]):
    """Greet somebody by name."""

    subject: ClassVar = "vx11.$name.greet"
    idempotent: ClassVar = True

    name: str = Field(min_length=1, max_length=100)
''')

ACTOR = Template('''"""$name: greets people by name."""

from __future__ import annotations

from bus import Actor
from $name.schema import Greet, GreetReply

actor = Actor("$name", summary="greets people by name", idle_after=60)


@actor.handles
async def greet(request: Greet) -> GreetReply:
    return GreetReply(text=f"Hello, {request.name}!")
''')

TEST = Template('''"""$name: the facts."""

from __future__ import annotations

import asyncio

import pytest

from bus import stage
from $name.actor import actor
from $name.schema import Greet, GreetReply
from schemas.errors import Failure


def ask(request: Greet) -> GreetReply:
    """Ask the actor as a program would: over a real server of its own, which takes a tenth of a second."""

    async def on_stage() -> GreetReply:
        async with stage(actor) as bus:
            return await bus.request(request)

    return asyncio.run(on_stage())


def test_it_greets_by_name() -> None:
    assert "Ana" in ask(Greet(name="Ana")).text


def test_nobody_is_not_greeted() -> None:
    """The bus answers `invalid` by itself; the handler never sees such a request."""
    with pytest.raises(Failure, match="^invalid: .*name"):
        ask(Greet.model_construct(name=""))
''')

FILES = {"__init__.py": PACKAGE, "schema.py": SCHEMA, "actor.py": ACTOR, "test_{name}.py": TEST}


@new.command("actor")
def new_actor(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Lower case, for instance greeter.", metavar="NAME")],
    json: AsJson = False,
) -> None:
    """Write a new actor with one verb, its schema and its test, ready to be called."""
    desk = desk_of(ctx, json=json)
    folder = desk.settings.actor_paths[0]
    check_name(name, desk.settings.actor_paths)
    made = write(folder, name)
    _await_host(desk, name, folder)
    actor, test = _typed(folder / name / "actor.py"), _typed(folder / name)
    steps = [
        (f"vx11 call {name}.greet name=Ana", "wakes it; it answers"),
        (f"edit {actor}, and call again", "the new answer"),
        (f"python -m pytest {test}", "its test"),
        (f"vx11 status; vx11 logs {name}", "how it is, what it printed"),
    ]

    def draw() -> None:
        for path in made:
            desk.screen.line(f"wrote {path}")
        desk.screen.advise(steps)

    desk.screen.data({"name": name, "files": [str(path) for path in made], "next": [step for step, _ in steps]}, draw)
    if not desk.run_if_up(lambda remote: _known(remote, name)):
        desk.screen.talk("VX11 has not noticed it yet: it is not running here, or it looks elsewhere; see `vx11 status`")


async def _known(remote: Remote, name: str) -> bool:
    """Whether madre knows the actor within NOTICED_S: then the first call finds it."""
    import asyncio
    import time

    from gateway.cli.remote import card_of
    from schemas.errors import Failure

    end = time.monotonic() + NOTICED_S
    while time.monotonic() < end:
        try:
            return bool(await card_of(remote, name))
        except Failure:
            await asyncio.sleep(LOOK_EVERY_S)
    return False


def _await_host(desk: Desk, name: str, folder: Path) -> None:
    """Where VX11 runs, come back once it has found the actor: what is typed next is a call."""
    import asyncio
    import time

    from gateway.cli.home import recorded
    from gateway.cli.remote import card_of
    from schemas.errors import Failure

    found = recorded(desk.settings)
    if found is None or not found.supervisor.alive:
        return

    async def work(remote: Remote) -> bool:
        end = time.monotonic() + FOUND_S
        while time.monotonic() < end:
            try:
                return bool(await card_of(remote, name))
            except Failure:
                await asyncio.sleep(LOOK_EVERY_S)
        return False

    if not desk.run(work):
        desk.screen.talk(f"VX11 runs here, but has not found {name} in {FOUND_S:g} s; does it look for actors in {folder}?")


def check_name(name: str, folders: list[Path]) -> None:
    """Raise Failure unless `name` can be an actor's, a package's and a subject's, and is not taken."""
    import importlib.util

    from schemas.errors import Failure
    from schemas.message import RESERVED

    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name in RESERVED:
        raise Failure(
            "invalid",
            f"{name!r} cannot be the name of an actor",
            why=f"a-z, 0-9 and _, beginning with a letter; none of {', '.join(sorted(RESERVED))}; no word of Python",
            next=[["vx11 new actor greeter", "for instance"]],
        )
    if any((folder / name).exists() for folder in folders):
        raise Failure("conflict", f"there is an actor {name} already", next=[[f"vx11 call {name}.describe", "what it can do"]])
    if (BUILT_IN / name).exists() or importlib.util.find_spec(name):
        raise Failure(
            "conflict",
            f"the name {name} is taken",
            why="VX11 has such an actor itself, or an installed Python package of this name would be imported instead",
            next=[[f"vx11 new actor my_{name}", "another name"]],
        )


def write(folder: Path, name: str) -> list[Path]:
    """Write the files of the actor into `<folder>/<name>`; those written."""
    made: list[Path] = []
    (folder / name).mkdir(parents=True)
    conftest = folder / "conftest.py"
    if not conftest.exists():
        conftest.write_text(CONFTEST, encoding="utf-8")
        made.append(conftest)
    for file, template in FILES.items():
        path = folder / name / file.format(name=name)
        path.write_text(template.substitute(name=name), encoding="utf-8")
        made.append(path)
    return made


def _typed(path: Path) -> str:
    """The path as one would type it from here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
