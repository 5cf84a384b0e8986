"""The commands of `vx11`, and the one place where a failure of any of them is told.

Modules are imported when a command runs: `--help` and completion must not pay for pydantic, nats or rich's tables.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.cli import (
    call,
    chat,
    dlq,
    doctor,
    events,
    golden,
    log,
    logs,
    look,
    models,
    nats_context,
    new_actor,
    power,
    replay,
    route,
    tokens,
    top,
    trace,
    up,
    usage,
    why,
)
from gateway.cli.desk import HOME_ASKED, JSON_ASKED


class Group(TyperGroup):
    """Runs a command and turns what it raises into words and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except Exception as error:
            from gateway.cli.advice import understood
            from gateway.cli.screen import Screen

            failure = understood(error)
            if failure is None:
                raise
            raise typer.Exit(Screen(json=bool(ctx.meta.get(JSON_ASKED))).failure(failure)) from error


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="VX11: one gateway, one bus, everything else asleep until it is asked.",
    epilog="On another machine: export VX11_URL=http://host:8000 VX11_TOKEN=...",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"vx11 {version('vx11')}")
        except PackageNotFoundError:
            typer.echo("vx11, run from its folder without being installed")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    home: Annotated[Path | None, typer.Option(help="The data folder; else VX11_HOME, else ./data.", metavar="FOLDER")] = None,
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    ctx.meta[HOME_ASKED] = home


RUN, POWER, TALK, CARE, BUILD = "Run", "Power", "Talk", "Care", "Build"

app.command(rich_help_panel=RUN)(up.up)
app.command(rich_help_panel=RUN)(up.down)
app.command(rich_help_panel=RUN)(look.status)
app.command(rich_help_panel=RUN)(look.ps)
app.command(rich_help_panel=RUN)(top.top)
app.command(rich_help_panel=RUN)(why.why)
app.command(rich_help_panel=RUN)(events.events)
app.command(rich_help_panel=RUN)(replay.replay)
app.command(rich_help_panel=RUN)(logs.logs)
app.command(rich_help_panel=RUN)(doctor.doctor)
app.command(rich_help_panel=POWER)(power.wake)
app.command(rich_help_panel=POWER)(power.sleep)
app.command(rich_help_panel=POWER)(power.restart)
app.command(rich_help_panel=POWER)(power.gate)
app.add_typer(power.window, name="window", rich_help_panel=POWER)
app.command(rich_help_panel=POWER)(power.policy)
app.command(rich_help_panel=TALK)(chat.chat)
app.command(rich_help_panel=TALK)(route.route)
app.command(rich_help_panel=TALK)(call.call)
app.command(rich_help_panel=TALK)(trace.trace)
app.add_typer(models.models, name="models", rich_help_panel=CARE)
app.add_typer(tokens.token, name="token", rich_help_panel=CARE)
app.command(rich_help_panel=CARE)(usage.usage)
app.add_typer(dlq.dlq, name="dlq", rich_help_panel=CARE)
app.add_typer(log.log, name="log", rich_help_panel=CARE)
app.command("nats-context", rich_help_panel=CARE)(nats_context.nats_context)
if find_spec("gateway.cli.torture"):
    app.command(rich_help_panel=CARE)(import_module("gateway.cli.torture").torture)
app.add_typer(new_actor.new, name="new", rich_help_panel=BUILD)
app.command(rich_help_panel=BUILD)(golden.golden)
