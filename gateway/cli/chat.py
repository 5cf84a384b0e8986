"""`chat`: talk to VX11, once or in a conversation. The answer is shown as it comes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.cli.remote import Remote
    from schemas.errors import Failure
    from schemas.operator_backend import Chat

INSTEAD = frozenset({"off_by_policy", "crashed", "unavailable", "waking", "not_found", "not_installed"})
"""What operator_backend may fail with so that madre is asked instead."""
LEAVE = frozenset({"/quit", "/exit", "/q"})
PROMPT = "you> "

Document = dict[str, Any]


def chat(
    ctx: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(help="Without it a conversation begins.", metavar="TEXT")] = None,
    session: Annotated[str, typer.Option(help="Go on with this conversation.", metavar="ID")] = "",
    json: AsJson = False,
) -> None:
    """Talk to VX11: `vx11 chat who is awake?`"""
    import sys

    desk = desk_of(ctx, json=json)
    said = " ".join(text or []) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if said:
        _turn(desk, said, session)
    elif sys.stdin.isatty():
        converse(desk, session)
    else:
        raise typer.BadParameter("there is nothing to say: stdin is empty", param_hint="TEXT")


def converse(desk: Desk, session: str = "") -> None:
    """Until Ctrl-D or /quit. An error ends the turn, not the conversation; Ctrl-C ends the answer."""
    from schemas.errors import Failure

    with suppress(ImportError):
        import readline  # noqa: F401 - importing it gives `input` a history and the arrow keys
    desk.screen.talk("Ctrl-C cuts an answer off, Ctrl-D or /quit leaves.", style="dim")
    while True:
        try:
            said = input(PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            desk.screen.talk("")
            return
        if said in LEAVE:
            return
        try:
            session = _turn(desk, said, session) if said else session
        except Failure as failure:
            desk.screen.failure(failure)
        except KeyboardInterrupt:
            desk.screen.talk("\n(cut off)", style="dim")


def _turn(desk: Desk, said: str, session: str) -> str:
    """One message and its answer; the conversation's id."""
    from gateway.cli.advice import understood
    from schemas.operator_backend import Chat

    try:
        message = Chat(message=said, session_id=session or None)
    except ValueError as error:
        raise understood(error) or error from error
    answering = Answering(desk, message)
    document = desk.run(answering.answer)
    if desk.screen.json:
        desk.screen.document(document)
    else:
        _sign(desk, document)
    return str(document.get("session_id", session))


@dataclass
class Answering:
    """One answer on its way to the screen. `shown`: some of its text stands there already."""

    desk: Desk
    message: Chat
    shown: bool = False

    async def answer(self, remote: Remote) -> Document:
        """operator_backend's answer; madre's when operator_backend cannot say a word."""
        from schemas.errors import Failure

        try:
            return await self._streamed(remote)
        except Failure as failure:
            if self.shown:
                self._say("\n")
            if self.shown or failure.code not in INSTEAD:
                raise
            return await self._from_madre(remote, failure)

    async def _streamed(self, remote: Remote) -> Document:
        from schemas.errors import Failure

        document = self.message.model_dump(mode="json", exclude_none=True)
        whole: Document | None = None
        async for piece in remote.stream(self.message.subject, document, timeout=self.message.timeout):
            if not piece.last:
                self._show(piece.document)
                continue
            whole = piece.document
            self._say("\n" if self.shown else f"{whole.get('response', '')}\n")
            if piece.wake_ms and not self.desk.screen.json:
                self.desk.screen.talk(f"  (woken for this in {piece.wake_ms} ms)", style="dim")
        if whole is None:
            raise Failure("crashed", "the answer ended before it was whole", actor="operator_backend")
        return whole

    async def _from_madre(self, remote: Remote, failure: Failure) -> Document:
        """Without a model and without history; the same names as in the answer of operator_backend."""
        from secrets import token_hex

        from gateway.cli.remote import request
        from schemas import madre

        session = self.message.session_id or token_hex(8)
        reply = await request(remote, madre.Chat(message=self.message.message, session_id=session))
        self._say(f"{reply.response}\n")
        return {
            "response": reply.response,
            "model_used": "madre",
            "provider": "madre",
            "session_id": session,
            "status": "degraded",
            "degraded": True,
            "fallback_source": "madre",
            "reason": f"operator_backend: {failure.message}",
            "history": "unavailable",
        }

    def _show(self, chunk: Mapping[str, Any]) -> None:
        if chunk.get("restart") and self.shown and not self.desk.screen.json:
            self._say("\n")
            self.desk.screen.talk("(that was cut off; from the beginning:)", style="dim")
        self._say(str(chunk.get("text", "")))
        self.shown = True

    def _say(self, text: str) -> None:
        if not self.desk.screen.json:
            self.desk.screen.say(text)


def _sign(desk: Desk, reply: Document) -> None:
    """Who answered, how fast, and what was missing."""
    by = str(reply.get("provider", "?"))
    if reply.get("model") and reply["model"] != by:
        by = f"{reply['model']} ({by})"
    took = f", {reply['latency_ms']:.0f} ms" if "latency_ms" in reply else ""
    desk.screen.talk(f"  {by}{took}, session {reply.get('session_id')}", style="dim")
    if reply.get("degraded"):
        reason = reply.get("reason") or "switch did not"
        desk.screen.talk(f"  ▲ {reply.get('fallback_source') or by} answered: {reason}", style="yellow")
    if reply.get("history") == "unavailable":
        desk.screen.talk("  ▲ this conversation is not being kept: history is unavailable", style="yellow")
