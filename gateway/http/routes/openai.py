"""Routes of the OpenAI-compatible door: any program made for OpenAI's API, with base_url=http://.../v1."""

from __future__ import annotations

from gateway.http.openai import chat, embeddings, models
from gateway.http.openai.manner import OPENAI
from gateway.http.openai.question import ChatBody, EmbeddingsBody
from gateway.http.routes.route import ACTOR_FAILS, JSON_OR_STREAM, Route

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/chat/completions",
        "openai_chat",
        "chat",
        chat.completions,
        "Answer a conversation with a language model.",
        media=JSON_OR_STREAM,
        takes=ChatBody,
        fails=(*ACTOR_FAILS, "cancelled"),
        manner=OPENAI,
    ),
    Route(
        "GET",
        "/v1/models",
        "openai_models",
        "read",
        models.list_models,
        "Whom a chat may name.",
        models.Models,
        fails=ACTOR_FAILS,
        manner=OPENAI,
    ),
    Route(
        "GET",
        "/v1/models/{model}",
        "openai_model",
        "read",
        models.get_model,
        "One of them.",
        models.Model,
        fails=ACTOR_FAILS,
        manner=OPENAI,
        deep=True,
    ),
    Route(
        "POST",
        "/v1/embeddings",
        "openai_embeddings",
        "chat",
        embeddings.embeddings,
        "The meaning of texts as vectors.",
        embeddings.EmbeddingsAnswer,
        takes=EmbeddingsBody,
        fails=(*ACTOR_FAILS, "cancelled"),
        manner=OPENAI,
    ),
)
