"""`nats-context`: a context file with which the stock `nats` command line reaches this VX11."""

from __future__ import annotations

import json as json_text
import os
import pwd
from pathlib import Path

import typer

from gateway.cli.desk import AsJson, desk_of

NAME = "vx11"


def nats_context(ctx: typer.Context, json: AsJson = False) -> None:
    """Let the stock `nats` command line in: write its context file and show what to type."""
    from gateway.cli.home import running

    desk = desk_of(ctx, json=json)
    run = running(desk.settings)
    seed = desk.settings.seed_file("client").absolute()
    path = write(desk.config, run.nats_url, seed)
    commands = (
        (f"nats --context {NAME} micro ls", "who exists, sleepers too"),
        (f"nats --context {NAME} req vx11.madre.list_actors '{{}}'", "ask any verb"),
        (f"nats --context {NAME} sub 'vx11.events.>'", "what happens, as it happens"),
        (f"nats --context {NAME} stream view VX11_EVENTS", "what happened"),
        (f"nats --context {NAME} kv watch VX11_ACTORS", "who is awake, live"),
        (f"nats context select {NAME}", "to leave --context away"),
    )

    def draw() -> None:
        desk.screen.line(f"wrote {path}")
        desk.screen.advise([*_where(desk.config), *commands])

    desk.screen.data({"path": str(path), "name": NAME, "url": run.nats_url, "nkey": str(seed)}, draw)


def _where(config: Path) -> list[tuple[str, str]]:
    """`nats` looks in the home of the user's account, also where HOME names another, as under sudo."""
    try:
        account = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a user without an account, as in containers: then it goes by HOME
        return []
    if os.environ.get("XDG_CONFIG_HOME") or config == account / ".config":
        return []
    return [(f"export XDG_CONFIG_HOME={config}", f"nats would look in {account}")]


def write(config: Path, url: str, seed: Path) -> Path:
    """Write `<config>/nats/context/vx11.json` (0600), replaced whole. It names the seed's file, not the seed."""
    folder = config / "nats" / "context"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{NAME}.json"
    text = json_text.dumps({"description": "VX11 on this machine", "url": url, "nkey": str(seed)}, indent=2)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    new.replace(path)
    return path
