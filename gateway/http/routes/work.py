"""Routes that give work: chat, intents, any verb of any actor."""

from __future__ import annotations

from gateway.http import calls, chat, intent
from gateway.http.routes.route import ACTOR_FAILS, JSON_OR_STREAM, Route
from schemas.operator_backend import ChatReply

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/operator/api/chat",
        "chat",
        "chat",
        chat.chat,
        "Say something.",
        ChatReply,
        media=JSON_OR_STREAM,
        takes=chat.ChatBody,
        fails=ACTOR_FAILS,
        stores=True,
    ),
    Route(
        "POST",
        "/vx11/intent",
        "intent",
        "chat",
        intent.submit,
        "Submit work.",
        intent.Intent,
        takes=intent.IntentBody,
        fails=ACTOR_FAILS,
        stores=True,
    ),
    Route(
        "GET",
        "/vx11/result/{id}",
        "result",
        "chat",
        intent.result,
        "What became of it.",
        intent.Intent,
        fails=("not_found",),
    ),
    Route(
        "POST",
        "/call/{actor}/{verb}",
        "call",
        "command",
        calls.call,
        "Ask any verb of any actor.",
        any_object=True,
        media=JSON_OR_STREAM,
        fails=ACTOR_FAILS,
    ),
)
