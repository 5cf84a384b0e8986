"""What every command has at hand: the settings, the way to the system, and where to print."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.cli.screen import Screen

if TYPE_CHECKING:
    from bus.settings import Settings
    from gateway.cli.remote import Remote
    from schemas.message import Message, Request

    R = TypeVar("R", bound=Message)

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JSON_ASKED = "vx11.json"
"""Key of the context's meta: an error is to be JSON, too."""
HOME_ASKED = "vx11.home"
"""Key of the context's meta: the data folder of `vx11 --home`."""


@dataclass(frozen=True)
class Desk:
    """Made once a command from the environment; tests make their own."""

    settings: Settings
    config: Path
    """Where other programs of this user keep their configuration."""
    open: Callable[[Settings], AbstractAsyncContextManager[Remote]]
    screen: Screen

    def run(self, work: Callable[[Remote], Awaitable[T]]) -> T:
        """Open the way to the system, do the work, close it. Raises Failure."""

        async def whole() -> T:
            async with self.open(self.settings) as remote:
                return await work(remote)

        return run_async(whole())

    def run_if_up(self, work: Callable[[Remote], Awaitable[T]]) -> T | None:
        """The same for what is only a help: None when there is no way to the system."""
        from schemas.errors import Failure

        try:
            return self.run(work)
        except Failure:
            return None

    def need_this_machine(self, told: str) -> None:
        """For what no gateway can be asked for. Raises Failure("invalid"): nothing of this machine passes for another's."""
        from schemas.errors import Failure

        if self.settings.get("VX11_URL"):
            raise Failure("invalid", f"{told}, but VX11_URL points to another", next=[["unset VX11_URL", "to ask this machine"]])

    def ask(self, message: Request[R]) -> R:
        """One typed request. Raises Failure."""
        from gateway.cli.remote import request

        return self.run(lambda remote: request(remote, message))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """The one place where the command line enters asyncio."""
    return asyncio.run(work)


def desk_of(ctx: typer.Context, *, json: bool = False) -> Desk:
    """The desk of this command; `json` also makes its errors JSON."""
    ctx.meta[JSON_ASKED] = json
    given = ctx.find_root().obj
    made: Desk = given if isinstance(given, Desk) else make_desk(ctx.meta.get(HOME_ASKED))
    return replace(made, screen=Screen(json=json))


def make_desk(home: Path | None) -> Desk:
    """Reads the environment, once. `home` beats `VX11_HOME`."""
    import os

    from bus.settings import Settings
    from gateway.cli.remote import open_remote

    environ = {**os.environ, "VX11_HOME": str(home.absolute())} if home else dict(os.environ)
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Desk(Settings.read(environ), config, open_remote, Screen())
