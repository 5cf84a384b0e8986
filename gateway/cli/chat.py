"""`chat`: talk to VX11, once or in a conversation. The answer is shown as it comes."""

from __future__ import annotations

import sys
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.desk import AsJson, Desk, desk_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.cli.remote import Remote
    from schemas.errors import Failure
    from schemas.language import Language
    from schemas.operator_backend import Chat

INSTEAD = frozenset({"off_by_policy", "crashed", "unavailable", "waking", "not_found", "not_installed"})
"""What operator_backend may fail with so that madre is asked instead."""
PROVIDERS = ("vx11 call switch.list_providers", "which models are configured, and what is wrong with them")
YES: dict[Language, str] = {"en": "yes", "es": "sí"}
LEAVE = frozenset({"/quit", "/exit", "/q"})
PROMPT = "you> "
SESSION_BYTES = 8
SENTENCES: dict[str, dict[Language, str]] = {
    "goes_on": {"en": "— {who} goes on ({before} was cut off)", "es": "— sigue {who} ({before} se ha cortado)"},
    "restart": {
        "en": "(that was cut off; {who} from the beginning:)",
        "es": "(eso se ha cortado; {who} desde el principio:)",
    },
    "instead": {"en": "▲ {who} answered: {reason}", "es": "▲ responde {who}: {reason}"},
    "do_it": {"en": "do it", "es": "hazlo"},
    "not_kept": {
        "en": "▲ this conversation is not being kept: history is unavailable",
        "es": "▲ esta conversación no se guarda: el historial no está disponible",
    },
}
"""What is said around an answer, in the language of the question."""

Document = dict[str, Any]


def chat(
    ctx: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(help="Without it a conversation begins.", metavar="TEXT")] = None,
    session: Annotated[str, typer.Option(help="Go on with this conversation.", metavar="ID")] = "",
    model: Annotated[str, typer.Option(help="Ask this one: a model, a provider, or provider/model.", metavar="NAME")] = "",
    json: AsJson = False,
) -> None:
    """Talk to VX11: `vx11 chat who is awake?`"""
    desk = desk_of(ctx, json=json)
    said = " ".join(text or []) or ("" if sys.stdin.isatty() else sys.stdin.read().strip())
    if said:
        _turn(desk, said, session, model, once=True)
    elif sys.stdin.isatty():
        converse(desk, session, model)
    else:
        raise typer.BadParameter("there is nothing to say: stdin is empty", param_hint="TEXT")


def converse(desk: Desk, session: str = "", model: str = "") -> None:
    """Until Ctrl-D or /quit. An error ends the turn, not the conversation; Ctrl-C ends the answer."""
    from schemas.errors import Failure

    with suppress(ImportError):
        import readline  # noqa: F401 - importing it gives `input` a history and the arrow keys
    desk.screen.talk("Ctrl-C cuts an answer off, Ctrl-D or /quit leaves.", style="dim")
    session = session or token_hex(SESSION_BYTES)  # chosen here, so that the first answer may be cut off, too
    while True:
        try:
            said = input(PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            desk.screen.talk("")
            return
        if said in LEAVE:
            return
        try:
            session = _turn(desk, said, session, model) if said else session
        except Failure as failure:
            desk.screen.failure(failure)
        except KeyboardInterrupt:
            desk.screen.talk("\n(cut off)", style="dim")


def _turn(desk: Desk, said: str, session: str, model: str, *, once: bool = False) -> str:
    """One message and its answer; the conversation's id. `once`: how to go on is said where an answer is waited for."""
    from gateway.cli.advice import understood
    from schemas.operator_backend import Chat

    try:
        message = Chat(message=said, session_id=session or None, model=model or None)
    except ValueError as error:
        raise understood(error) or error from error
    answering = Answering(desk, message)
    document = desk.run(answering.answer)
    if desk.screen.json:
        desk.screen.document(document)
    else:
        _sign(desk, document, answering.language)
        desk.screen.advise(_next(document, answering.language, once=once))
    return str(document.get("session_id", session))


class Answering:
    """One answer on its way to the screen."""

    def __init__(self, desk: Desk, message: Chat) -> None:
        from schemas.language import language_of

        self.language: Language = language_of(message.message) or "en"
        self._desk = desk
        self._message = message
        self._shown = False
        """Some of its text stands there already."""
        self._speaker: Mapping[str, Any] = {}
        """Who has said it."""

    async def answer(self, remote: Remote) -> Document:
        """operator_backend's answer; madre's when operator_backend cannot say a word."""
        from schemas.errors import Failure

        try:
            return await self._streamed(remote)
        except Failure as failure:
            if self._shown:
                self._say("\n")
            if self._shown or failure.code not in INSTEAD:
                raise
            return await self._from_madre(remote, failure)

    async def _streamed(self, remote: Remote) -> Document:
        from schemas.errors import Failure

        document = self._message.model_dump(mode="json", exclude_none=True)
        whole: Document | None = None
        async for piece in remote.stream(self._message.subject, document, timeout=self._message.timeout):
            if not piece.last:
                self._show(piece.document)
                continue
            whole = piece.document
            self._say("\n" if self._shown else f"{whole.get('response', '')}\n")
            if piece.wake_ms and not self._desk.screen.json:
                self._desk.screen.talk(f"  (woken for this in {piece.wake_ms} ms)", style="dim")
        if whole is None:
            raise Failure("crashed", "the answer ended before it was whole", actor="operator_backend")
        return whole

    async def _from_madre(self, remote: Remote, failure: Failure) -> Document:
        """Without a model and without history; the same names as in the answer of operator_backend."""
        from gateway.cli.remote import request
        from schemas import madre
        from schemas.wording import unanswered

        session = self._message.session_id or token_hex(SESSION_BYTES)
        reply = await request(remote, madre.Chat(message=self._message.message, session_id=session))
        self._say(f"{reply.response}\n")
        return {
            "response": reply.response,
            "model_used": "madre",
            "model": "madre",
            "provider": "madre",
            "session_id": session,
            "status": "degraded",
            "degraded": True,
            "fallback_source": "madre",
            "fallback_code": failure.code,
            "reason": unanswered(self.language, "operator_backend", failure),
            "pending": reply.pending,
            "history": "unavailable",
        }

    def _show(self, chunk: Mapping[str, Any]) -> None:
        """A piece of the text. Who goes on in the middle is named on stderr, so that a pipe gets the text alone."""
        speaker = chunk.get("speaker") or {}
        restart = bool(chunk.get("restart"))
        if self._shown and (speaker or restart):
            self._announce(speaker, restart=restart)
        self._speaker = speaker or self._speaker
        self._say(str(chunk.get("text", "")))
        self._shown = self._shown or bool(chunk.get("text"))

    def _announce(self, speaker: Mapping[str, Any], *, restart: bool) -> None:
        if self._desk.screen.json:
            return
        if restart or sys.stdout.isatty():
            self._say("\n")
        names = {"who": speaker.get("model", "…"), "before": self._speaker.get("provider")}
        told = SENTENCES["restart" if restart else "goes_on"][self.language]
        self._desk.screen.talk(told.format(**names), style="dim")

    def _say(self, text: str) -> None:
        if not self._desk.screen.json:
            self._desk.screen.say(text)


def _sign(desk: Desk, reply: Document, language: Language) -> None:
    """Who answered, how fast, why this one, and what was missing."""
    talk = desk.screen.talk
    took = f", {reply['latency_ms']:.0f} ms" if "latency_ms" in reply else ""
    talk(f"  {_signed(reply)}{took}, session {reply.get('session_id')}", style="dim")
    if reply.get("note"):
        talk(f"  {reply['note']}", style="dim")
    if reply.get("degraded"):
        who = reply.get("fallback_source") or reply.get("provider")
        talk(f"  {SENTENCES['instead'][language].format(who=who, reason=reply.get('reason'))}", style="yellow")
    elif reply.get("reason"):
        talk(f"  {reply['reason']}", style="dim")
    if reply.get("history") == "unavailable":
        talk(f"  {SENTENCES['not_kept'][language]}", style="yellow")


def _next(reply: Document, language: Language, *, once: bool) -> tuple[tuple[str, str], ...]:
    """What to type now, where somebody could not answer or waits for a yes."""
    from gateway.cli.advice import explain
    from schemas.errors import Failure

    if once and reply.get("pending"):
        return ((f"vx11 chat --session {reply.get('session_id')} {YES[language]}", SENTENCES["do_it"][language]),)
    if not (code := reply.get("fallback_code")):
        return ()
    if not reply.get("message_id"):  # which only operator_backend gives
        return explain(Failure(code, ""), actor="operator_backend").next
    return (PROVIDERS,) if code == "unavailable" else explain(Failure(code, ""), actor="switch").next


def _signed(reply: Document) -> str:
    """Everybody who has said a part of it, in order."""
    names = []
    for one in reply.get("speakers") or [reply]:
        model, provider = one.get("model"), str(one.get("provider", "?"))
        names.append(f"{model} ({provider})" if model and model != provider else provider)
    return ", ".join(names)
