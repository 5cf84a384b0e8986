"""An actor as an HTTP service of its own: FastAPI, as one would write it without VX11."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel

from tests.bench.programs.uvicorn_on import serve


class Echo(BaseModel):
    n: int = 0
    seconds: float = 0.0
    pad: str = ""


class Echoed(BaseModel):
    n: int
    pid: int


app = FastAPI()


@app.post("/call/echo/echo")
async def echo(request: Echo) -> Echoed:
    return Echoed(n=request.n, pid=os.getpid())


if __name__ == "__main__":
    serve(app)
