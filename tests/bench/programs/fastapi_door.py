"""A gateway of FastAPI that passes requests on to an HTTP service, by httpx or by aiohttp's client."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import httpx
from fastapi import FastAPI, Request, Response

from tests.bench.programs.uvicorn_on import serve

SERVICE = f"http://127.0.0.1:{sys.argv[2]}"
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def by_httpx(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(base_url=SERVICE, headers=JSON) as client:

        async def ask(path: str, body: bytes) -> bytes:
            answer = await client.post(path, content=body)
            return answer.raise_for_status().content

        app.state.ask = ask
        yield


@asynccontextmanager
async def by_aiohttp(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(SERVICE, headers=JSON, raise_for_status=True) as client:

        async def ask(path: str, body: bytes) -> bytes:
            async with client.post(path, data=body) as answer:
                return await answer.read()

        app.state.ask = ask
        yield


app = FastAPI(lifespan={"httpx": by_httpx, "aiohttp": by_aiohttp}[sys.argv[1]])


@app.post("/call/{actor}/{verb}")
async def call(actor: str, verb: str, request: Request) -> Response:
    answer = await app.state.ask(f"/call/{actor}/{verb}", await request.body())
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    serve(app)
