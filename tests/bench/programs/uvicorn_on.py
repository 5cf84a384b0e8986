"""Serve an application on a free port and say which."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI


def serve(app: FastAPI) -> None:
    door = socket.create_server(("127.0.0.1", 0))
    print("ready", door.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", loop="uvloop")).run(sockets=[door])
