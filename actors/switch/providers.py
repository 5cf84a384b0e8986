"""The configured providers of language models, from the environment and from `<home>/providers.toml`."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.switch.address import checked_url
from bus.redaction import know
from bus.settings import PASSED, Settings

FILE_NAME = "providers.toml"
FILE_MAX_BYTES = 64 * 1024
KEY_FILE_MAX_BYTES = 4 * 1024
FROM_ENVIRONMENT = "env"
"""The name of the provider that VX11_LLM_URL, VX11_LLM_MODEL and VX11_LLM_KEY describe."""
RESERVED_NAMES = frozenset({FROM_ENVIRONMENT, "auto"})
NAME_FORM = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
MODEL_FORM = re.compile(r"[!-~]{1,200}")
KEY_FORM = re.compile(r"[!-~]{1,1000}")
"""What fits into a header."""
OPEN_AT_ONCE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Without waiting for a writer, should the path be a pipe."""
LINES = ("url", "model", "models", "key_env", "key_file", "ask_usage")
EXAMPLE = 'for instance  url = "http://127.0.0.1:11434/v1"'


class Misconfigured(ValueError):
    """A line that is missing or wrong; the message says which, and what to write."""


@dataclass(frozen=True)
class Provider:
    """`url`: the base, mostly ending in /v1. `model`: what it is asked for when nobody says otherwise.

    `models`: what it may be asked for besides. `key_source`: the variable or the file that the key came from.
    """

    name: str
    url: str
    model: str
    models: tuple[str, ...] = ()
    key: str = field(default="", repr=False)
    key_source: str = ""
    ask_usage: bool = True
    """Ask for token counts; a few servers refuse the field that asks."""

    @property
    def all_models(self) -> tuple[str, ...]:
        return (self.model, *(name for name in self.models if name != self.model))


@dataclass(frozen=True)
class Fault:
    """A provider that cannot be used as it is written."""

    name: str
    message: str


@dataclass(frozen=True)
class Configuration:
    """`providers` in the order in which they are asked. `files`: what was read; a change of one is worth a reload."""

    providers: tuple[Provider, ...] = ()
    faults: tuple[Fault, ...] = ()
    files: tuple[Path, ...] = ()


def load(settings: Settings) -> Configuration:
    """Read everything; what is wrong becomes a fault beside the providers that are right."""
    path = providers_file(settings)
    providers: list[Provider] = []
    faults: list[Fault] = []
    files = [path]
    try:
        found = _from_environment(settings)
        providers += [found] if found else []
    except Misconfigured as wrong:
        faults.append(Fault(FROM_ENVIRONMENT, str(wrong)))
    try:
        tables = _tables(path)
    except Misconfigured as wrong:
        return Configuration(tuple(providers), (*faults, Fault(FILE_NAME, f"{path}: {wrong}")), tuple(files))
    for name, table in tables.items():
        try:
            files += _key_files(table, settings)
            providers.append(_from_table(name, table, settings))
        except Misconfigured as wrong:
            faults.append(Fault(name, f"{path}, [{name}]: {wrong}"))
    return Configuration(tuple(providers), tuple(faults), tuple(files))


def providers_file(settings: Settings) -> Path:
    return settings.home / FILE_NAME


def stamp(files: tuple[Path, ...]) -> tuple[tuple[int, int, int, int] | None, ...]:
    """Equal to an earlier one as long as none of the files has changed."""
    return tuple(_stamp(path) for path in files)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _from_environment(settings: Settings) -> Provider | None:
    url, model, key = (settings.get(f"VX11_LLM_{part}") for part in ("URL", "MODEL", "KEY"))
    if not (url or model or key):
        return None
    if not url:
        raise Misconfigured("VX11_LLM_URL is not set; write for instance VX11_LLM_URL=http://127.0.0.1:11434/v1")
    if not model:
        raise Misconfigured("VX11_LLM_MODEL is not set; write the name of a model that VX11_LLM_URL has")
    return Provider(
        FROM_ENVIRONMENT,
        _url(url, "VX11_LLM_URL"),
        _model(model, "VX11_LLM_MODEL"),
        key=_key(key, "VX11_LLM_KEY") if key else "",
        key_source="VX11_LLM_KEY" if key else "",
    )


def _tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as wrong:
        raise Misconfigured(f"cannot be read: {wrong.strerror}") from wrong
    if len(text) > FILE_MAX_BYTES:
        raise Misconfigured(f"has more than {FILE_MAX_BYTES} bytes")
    try:
        return tomllib.loads(text.decode())
    except UnicodeDecodeError as wrong:
        raise Misconfigured("is not UTF-8 text") from wrong
    except (tomllib.TOMLDecodeError, RecursionError) as wrong:
        raise Misconfigured(f"is no TOML: {wrong}") from wrong


def _from_table(name: str, table: Any, settings: Settings) -> Provider:
    if not isinstance(table, dict):
        raise Misconfigured("is no table; write [name] on a line of its own and the provider's lines below it")
    if not NAME_FORM.fullmatch(name) or name in RESERVED_NAMES:
        raise Misconfigured(f"is no name for a provider: {NAME_FORM.pattern}, and not one of {', '.join(sorted(RESERVED_NAMES))}")
    _check_lines(table)
    models = table.get("models", [])
    if not isinstance(models, list):
        raise Misconfigured('models must be a list; write models = ["one", "another"]')
    ask_usage = table.get("ask_usage", True)
    if not isinstance(ask_usage, bool):
        raise Misconfigured("ask_usage must be true or false")
    key, source = _key_of(table, settings)
    return Provider(
        name,
        _url(_line(table, "url", EXAMPLE), "url"),
        _model(_line(table, "model", 'for instance  model = "llama3.2"'), "model"),
        tuple(_model(model, "models") for model in models),
        key,
        source,
        ask_usage,
    )


def _check_lines(table: Mapping[str, Any]) -> None:
    for line, value in table.items():
        if line in ("key", "api_key", "token"):
            raise Misconfigured(f"a key does not belong into this file; use key_env or key_file instead of {line}")
        if isinstance(value, dict):
            raise Misconfigured(f"has a table {line} inside; write [{line}] if that is another provider")
        if line not in LINES:
            near = difflib.get_close_matches(line, LINES, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(LINES)}"
            raise Misconfigured(f"unknown line {line}; {hint}")


def _line(table: Mapping[str, Any], name: str, example: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not value:
        raise Misconfigured(f"{name} is {'missing' if value is None else 'no text'}; {example}")
    return value


def _url(text: str, what: str) -> str:
    try:
        return checked_url(text)
    except ValueError as wrong:
        raise Misconfigured(f"{what} {wrong}") from wrong


def _model(name: Any, what: str) -> str:
    if not isinstance(name, str) or not MODEL_FORM.fullmatch(name):
        raise Misconfigured(f"{what} must name a model in up to 200 characters without blanks")
    return name


def _key(text: str, what: str) -> str:
    key = text.strip()
    if not KEY_FORM.fullmatch(key):
        raise Misconfigured(f"the key in {what} is empty, too long, or has blanks or letters outside ASCII")
    know([key])  # a provider may repeat it in what it says
    return key


def _key_of(table: Mapping[str, Any], settings: Settings) -> tuple[str, str]:
    """The key and where it came from; two empty texts when the provider needs none."""
    if "key_env" in table and "key_file" in table:
        raise Misconfigured("has key_env and key_file; keep one")
    if "key_env" in table:
        variable = _line(table, "key_env", 'for instance  key_env = "OPENAI_API_KEY"')
        return _key(_variable(variable, settings), variable), variable
    for path in _key_files(table, settings):
        return _key(_key_file(path), str(path)), str(path)
    return "", ""


def _variable(name: str, settings: Settings) -> str:
    if not name.startswith(PASSED):
        raise Misconfigured(
            f"key_env names {name}, which does not reach actors; only {', '.join(f'{p}*' for p in PASSED)} do: "
            f"rename it to VX11_{name}, or use key_file"
        )
    if not settings.get(name):
        raise Misconfigured(f"key_env names {name}, which was not set when VX11 started")
    return settings.get(name)


def _key_files(table: Any, settings: Settings) -> list[Path]:
    if not isinstance(table, dict) or "key_file" not in table:
        return []
    return [settings.home / Path(_line(table, "key_file", 'for instance  key_file = "openai.key"')).expanduser()]


def _key_file(path: Path) -> str:
    """The text of a file that nobody but its owner can read."""
    try:
        with os.fdopen(os.open(path, OPEN_AT_ONCE), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Misconfigured(f"key_file {path} is no file")
            if found.st_mode & 0o077:
                raise Misconfigured(f"key_file {path} is open to others; run  chmod 600 {path}")
            text = file.read(KEY_FILE_MAX_BYTES + 1)
    except OSError as wrong:
        raise Misconfigured(f"key_file {path} cannot be read: {wrong.strerror}") from wrong
    if len(text) > KEY_FILE_MAX_BYTES:
        raise Misconfigured(f"key_file {path} has more than {KEY_FILE_MAX_BYTES} bytes")
    return text.decode("utf-8", "replace")
