"""The program of the child that holds a model: llama.cpp's server on loopback, for whoever has the key.

It gets its settings as one line of JSON on stdin, and says in one line on stdout where it listens, or why it cannot. It ends when
its stdin closes, so with whoever started it. It imports nothing of VX11, which would cost it more than it takes to load a model.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NoReturn

BATCH = 512
"""Tokens of a prompt that are read at once."""
SAY_ERRORS = 1
"""How much llama.cpp logs: 0 nothing, 1 errors, 2 warnings."""
PR_SET_PDEATHSIG = 1
FAILED = 70
LINE_MAX_BYTES = 64 * 1024


def main() -> NoReturn:
    """Ends the process without tidying up, which would wait for the threads of the server."""
    _end_with_parent()
    told = json.loads(sys.stdin.buffer.readline(LINE_MAX_BYTES))
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no answer
    try:
        document: dict[str, Any] = {"url": f"{_serve(told)}/v1"}
    except ImportError as wrong:
        document = {"missing": str(wrong)}
    except MemoryError:
        document = {"error": "there is not enough memory for it"}
    except Exception as wrong:  # noqa: BLE001 - the C++ below raises what it likes; whoever started this says it on
        document = {"error": f"llama.cpp cannot load it: {wrong}"}
    os.write(answers, json.dumps(document).encode() + b"\n")
    if "url" not in document:
        os._exit(FAILED)
    while sys.stdin.buffer.read(LINE_MAX_BYTES):
        continue
    os._exit(0)


def _end_with_parent() -> None:
    """Also while a model is being loaded, when nothing looks at stdin. Linux only; elsewhere loading is finished first."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _serve(told: dict[str, Any]) -> str:
    """Load the model and return where it is served, which goes on in threads of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = told["path"]
    params.n_ctx = told["context"] * told["talks"]
    params.n_parallel = told["talks"]
    params.n_batch = BATCH
    params.n_predict = told["answer"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [told["key"]]
    params.model_alias = {told["name"]}
    params.cors_origins = ""
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.warmup = params.fit_params = False  # a third of a second for nothing: there is no GPU to fit it to
    params.cache_ram_mib = 0
    params.verbosity = SAY_ERRORS
    _server.append(xllamacpp.Server(params))
    return str(_server[0].listening_address)


_server: list[Any] = []
"""Kept for as long as the process lives: without a reference it would stop."""


if __name__ == "__main__":
    main()
