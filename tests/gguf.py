"""Headers of GGUF files, written by the format's own description, for tests that read them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT, LIST, UINT32 = 8, 9, 4


def header(entries: Mapping[str, Any], *, version: int = 3, count: int | None = None) -> bytes:
    """`count`: what the header claims, when that is not the number of entries."""
    pairs = b"".join(_text(key) + _value(value) for key, value in entries.items())
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries) if count is None else count) + pairs


def small(**more: Any) -> dict[str, Any]:
    """What a small language model says of itself."""
    return {
        "general.architecture": "llama",
        "general.name": "Tiny 15M",
        "llama.context_length": 512,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def write(folder: Path, name: str, *, size: int = 0, **more: Any) -> Path:
    """A file that has a header and then nothing. `size`: bytes in all, of which the disk gets none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.gguf"
    path.write_bytes(header(small(**more)))
    if size:
        with path.open("r+b") as file:
            file.truncate(size)
    return path


def _value(value: Any) -> bytes:
    match value:
        case str():
            return struct.pack("<I", TEXT) + _text(value)
        case int():
            return struct.pack("<II", UINT32, value)
        case [str(), *_]:
            return struct.pack("<IIQ", LIST, TEXT, len(value)) + b"".join(map(_text, value))
        case _:
            return struct.pack("<IIQ", LIST, UINT32, len(value)) + struct.pack(f"<{len(value)}I", *value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
