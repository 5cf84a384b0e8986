"""`token`: who may come in at the HTTP door. The secrets themselves are shown once and never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, desk_of

if TYPE_CHECKING:
    from gateway.tokens import Token

token = typer.Typer(help="Tokens for the HTTP door.", no_args_is_help=True)


@token.command("new")
def new_token(
    ctx: typer.Context,
    scopes: Annotated[str, typer.Option(help="What it may do: read,chat,command,jobs,power,admin.", metavar="A,B")] = "",
    lasts: Annotated[str, typer.Option("--for", help="How long it is good: 12h, 30d. Without it for ever.")] = "",
    note: Annotated[str, typer.Option(help="Whose it is, or what for.")] = "",
    json: AsJson = False,
) -> None:
    """Make a token and show it, once. Without --scopes it may read and chat."""
    from gateway.cli.amount import seconds
    from gateway.tokens import TokenFile

    desk = desk_of(ctx, json=json)
    try:
        ttl = seconds(lasts) if lasts else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from error
    wanted = [scope.strip() for scope in (scopes or MODEST).split(",") if scope.strip()]
    made, text = TokenFile(desk.settings.home).new(wanted, ttl_s=ttl, note=note)

    def draw() -> None:
        desk.screen.line(text)
        desk.screen.talk(f"It may {', '.join(made.scopes)}; good {_until(made)}. It is shown this once.")
        desk.screen.advise([(f"export VX11_TOKEN={text}", ""), (f"vx11 token revoke {made.id}", "takes it back")])

    desk.screen.data({**_document(made), "token": text}, draw)


MODEST = "read,chat"


@token.command("ls")
def list_tokens(ctx: typer.Context, json: AsJson = False) -> None:
    """Show the tokens: their ids and what they may do."""
    from gateway.tokens import TokenFile

    desk = desk_of(ctx, json=json)
    found = list(TokenFile(desk.settings.home).read().values())

    def draw() -> None:
        if not found:
            desk.screen.line("there are no tokens; `vx11 up` makes the first one")
            return
        rows = [(one.id, ", ".join(one.scopes), _state(one), one.created, one.expires or "never", one.note) for one in found]
        desk.screen.table(("id", "may", "state", "made", "expires", "note"), rows)

    desk.screen.data({"tokens": [_document(one) for one in found]}, draw)


@token.command("revoke")
def revoke_token(
    ctx: typer.Context,
    ident: Annotated[str, typer.Argument(help="Its id, or enough of it.", metavar="ID")],
    json: AsJson = False,
) -> None:
    """Make a token useless, at once and for good."""
    from gateway.tokens import TokenFile

    desk = desk_of(ctx, json=json)
    file = TokenFile(desk.settings.home)
    struck = file.revoke(_whole(ident, list(file.read())))
    desk.screen.data(_document(struck), lambda: desk.screen.line(f"{struck.id} is revoked"))


def _whole(ident: str, known: list[str]) -> str:
    """The one id that begins like that. Raises Failure when there are several or none."""
    from schemas.errors import Failure

    found = [one for one in known if one.startswith(ident)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} tokens begin with {ident}" if found else f"there is no token {ident}"
    raise Failure("conflict" if found else "not_found", what, next=[["vx11 token ls", "which there are"]])


def _state(one: Token) -> str:
    import time

    return "revoked" if one.revoked else "expired" if one.expired(time.time()) else "good"


def _until(one: Token) -> str:
    return f"until {one.expires}" if one.expires else "until it is revoked"


def _document(one: Token) -> dict[str, Any]:
    """Everything but the hash."""
    return {
        "id": one.id,
        "scopes": list(one.scopes),
        "state": _state(one),
        "created": one.created,
        "expires": one.expires,
        "revoked": one.revoked,
        "note": one.note,
    }
