"""The header of a GGUF file: what a language model says of itself, read without trusting it."""

from __future__ import annotations

import mmap
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_MAX_BYTES = 32 * 1024 * 1024
"""Real headers have some megabytes, most of it the words of the tokenizer."""
PAIRS_MAX = 4_096
KEY_MAX_BYTES = 1_024
TEXT_MAX_BYTES = 1024 * 1024
"""Of one text that is kept; a chat template has some thousands."""
KEPT_ITEMS = 64
"""Of a list; longer ones are the tokenizer's, and are skipped."""
BLOCK_BYTES = 1024 * 1024
TOKENIZER = "tokenizer."
TEMPLATE = b"tokenizer.chat_template"
TOOLS = b"tools"
"""A template that never says this word tells the model of no tool."""
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, LIST = 8, 9
SIZE_IN_NAME = re.compile(r"(?<![A-Za-z0-9])(\d+(?:\.\d+)?(?:x\d+(?:\.\d+)?)?[MB])(?![A-Za-z0-9])", re.IGNORECASE)
FLOAT16_BYTES = 2
UNKNOWN_CONTEXT = 2_048
"""Tokens, for a file that does not say."""


class NoModel(ValueError):
    """The file is none, or is broken; the message says which and goes after its name."""


@dataclass(frozen=True)
class Header:
    """`context`: the most tokens that the model can keep in mind. `template`: how a conversation is written down for it.

    `tools`: a conversation may have tools.
    """

    architecture: str = ""
    name: str = ""
    size_label: str = ""
    context: int = UNKNOWN_CONTEXT
    languages: tuple[str, ...] = ()
    license: str = ""
    kind: str = "model"
    template: bool = False
    tools: bool = False
    token_bytes: int = 0
    """Memory for one token of a conversation; 0 when the file does not say enough."""


def read(path: Path) -> Header:
    """The header. Raises NoModel; OSError when the file cannot be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise NoModel("is no file")  # to open a pipe is to wait for somebody at its other end
        with path.open("rb") as file:
            return _header(_pairs(_Reader(file, found.st_size)), path, _template(file, found.st_size))
    except (struct.error, UnicodeDecodeError) as wrong:
        raise NoModel("is cut off or broken: its header makes no sense") from wrong


@dataclass
class _Reader:
    """Reads forward, and no further than the file, or HEADER_MAX_BYTES."""

    file: BinaryIO
    size: int
    position: int = 0
    _block: bytes = field(default=b"", repr=False)
    _at: int = 0

    def take(self, count: int) -> bytes:
        self._advance(count)
        while len(self._block) - self._at < count:
            more = self.file.read(max(BLOCK_BYTES, count))
            if not more:
                raise NoModel("is cut off inside its header")
            self._block, self._at = self._block[self._at :] + more, 0
        self._at += count
        return self._block[self._at - count : self._at]

    def skip(self, count: int) -> None:
        kept = len(self._block) - self._at
        if count <= kept:
            self._advance(count)
            self._at += count
            return
        self._advance(count)
        self.file.seek(count - kept, 1)
        self._block, self._at = b"", 0

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > self.size:
            raise NoModel("is cut off inside its header")
        if self.position > HEADER_MAX_BYTES:
            raise NoModel(f"has a header of more than {HEADER_MAX_BYTES // 1024 // 1024} MB")

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, most: int) -> str:
        size = self.number("<Q")
        if size > most:
            raise NoModel(f"is broken: a text of {size} bytes in its header")
        return self.take(size).decode("utf-8", "replace")


def _pairs(reader: _Reader) -> dict[str, Any]:
    """What stands before the words of the tokenizer, which are most of a header: to read them takes tens of milliseconds."""
    if reader.size < len(MAGIC) or reader.take(len(MAGIC)) != MAGIC:
        raise NoModel("is no GGUF file")
    version = reader.number("<I")
    if version not in VERSIONS:
        raise NoModel(f"has GGUF version {version}; known are {' and '.join(map(str, VERSIONS))}, little-endian")
    reader.skip(8)  # how many tensors there are
    count = reader.number("<Q")
    if count > PAIRS_MAX:
        raise NoModel(f"is broken: {count} entries in its header")
    found: dict[str, Any] = {}
    for _ in range(count):
        key = reader.text(KEY_MAX_BYTES)
        if key.startswith(TOKENIZER) and any(name.endswith(".context_length") for name in found):
            break
        found[key] = _value(reader, reader.number("<I"))
    return found


def _value(reader: _Reader, kind: int) -> Any:
    """A number, a text, or a list of them; None for a list that is too long to be of interest."""
    if kind == LIST:
        return _list(reader, reader.number("<I"), reader.number("<Q"))
    if kind == TEXT:
        return reader.text(TEXT_MAX_BYTES)
    if kind not in NUMBERS:
        raise NoModel(f"is broken: an entry of type {kind} in its header")
    return reader.number(NUMBERS[kind])


def _list(reader: _Reader, kind: int, count: int) -> list[Any] | None:
    """Lists in lists are no part of any model."""
    if kind == LIST or kind not in (TEXT, *NUMBERS):
        raise NoModel(f"is broken: a list of type {kind} in its header")
    if count <= KEPT_ITEMS:
        return [_value(reader, kind) for _ in range(count)]
    if kind in NUMBERS:
        reader.skip(struct.calcsize(NUMBERS[kind]) * count)
    else:
        for _ in range(min(count, reader.size)):  # each has eight bytes at least, so that the file ends before
            reader.skip(reader.number("<Q"))
    return None


def _template(file: BinaryIO, size: int) -> bytes:
    """The chat template, which stands behind the words of the tokenizer: looked for, and empty when it is not there."""
    mark = struct.pack("<Q", len(TEMPLATE)) + TEMPLATE + struct.pack("<I", TEXT)
    with mmap.mmap(file.fileno(), min(size, HEADER_MAX_BYTES), access=mmap.ACCESS_READ) as header:
        at = header.find(mark) + len(mark)
        if at < len(mark) or at + 8 > len(header):
            return b""
        length = struct.unpack_from("<Q", header, at)[0]
        return header[at + 8 : at + 8 + min(length, TEXT_MAX_BYTES)]


def _header(found: Mapping[str, Any], path: Path, template: bytes) -> Header:
    architecture = _text(found, "general.architecture")
    name = _text(found, "general.name")
    if not architecture:
        raise NoModel("is broken: it does not say what kind of model it is")
    languages = found.get("general.languages")
    return Header(
        architecture=architecture,
        name=name,
        size_label=_text(found, "general.size_label") or _size_in(name) or _size_in(path.stem),
        context=_number(found, f"{architecture}.context_length") or UNKNOWN_CONTEXT,
        languages=tuple(str(code)[:20] for code in languages) if isinstance(languages, list) else (),
        license=_text(found, "general.license"),
        kind=_text(found, "general.type") or "model",
        template=bool(template),
        tools=TOOLS in template,
        token_bytes=_token_bytes(found, architecture),
    )


def _token_bytes(found: Mapping[str, Any], architecture: str) -> int:
    """Keys and values of all layers, as 16-bit numbers."""

    def one(name: str) -> int:
        return _number(found, f"{architecture}.{name}")

    heads = one("attention.head_count")
    width = one("attention.key_length") or (one("embedding_length") // heads if heads else 0)
    return one("block_count") * (one("attention.head_count_kv") or heads) * width * 2 * FLOAT16_BYTES


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _number(found: Mapping[str, Any], key: str) -> int:
    """A count; of a list, one for each layer, the greatest. 0 when there is none."""
    value = found.get(key)
    values = value if isinstance(value, list) else [value]
    return max((n for n in values if isinstance(n, int) and n > 0), default=0)


def _size_in(name: str) -> str:
    seen = SIZE_IN_NAME.search(name)
    return seen[1].upper().replace("X", "x") if seen else ""
