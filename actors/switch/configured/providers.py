"""The configured providers of language models, from the environment and from `<home>/providers.toml`."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.switch.asking.address import checked_url
from actors.switch.configured import lines
from actors.switch.configured.lines import Misconfigured
from actors.switch.configured.traits import DECLARED, UNKNOWN, Traits, declared
from actors.switch.paying import budget
from bus import models
from bus.redaction import know
from bus.settings import PASSED, Settings

FILE_NAME = "providers.toml"
FILE_MAX_BYTES = 64 * 1024
KEY_FILE_MAX_BYTES = 4 * 1024
FROM_ENVIRONMENT = "env"
"""The name of the provider that VX11_LLM_URL, VX11_LLM_MODEL and VX11_LLM_KEY describe."""
LOCAL = "local"
"""The name of the provider that runs the models folder."""
BUDGETS = "budgets"
RESERVED_NAMES = frozenset({FROM_ENVIRONMENT, "auto", LOCAL, BUDGETS})
NAME_FORM = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
MODEL_FORM = re.compile(r"[!-~]{1,200}")
KEY_FORM = re.compile(r"[!-~]{1,1000}")
"""What fits into a header."""
OPEN_AT_ONCE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Without waiting for a writer, should the path be a pipe."""
LINES = ("url", "model", "models", "key_env", "key_file", "ask_usage", *DECLARED)
MODELS_MAX = 200
EXAMPLE = 'for instance  url = "http://127.0.0.1:11434/v1"'


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
    declared: Traits = UNKNOWN
    """What all its models are good for, but those in `declared_each`."""
    declared_each: Mapping[str, Traits] = field(default_factory=dict, hash=False)

    @property
    def all_models(self) -> tuple[str, ...]:
        return (self.model, *(name for name in self.models if name != self.model))

    def traits(self, model: str) -> Traits:
        """What is declared of this model, be it one that nobody has named before."""
        return self.declared_each.get(model, self.declared)


@dataclass(frozen=True)
class Fault:
    """A provider that cannot be used as it is written."""

    name: str
    message: str


@dataclass(frozen=True)
class Configuration:
    """`providers` in the order in which they are written. `files`: what was read; a change of one is worth a reload.

    `budgets`: the table of this name as it is written.
    """

    providers: tuple[Provider, ...] = ()
    faults: tuple[Fault, ...] = ()
    files: tuple[Path, ...] = ()
    budgets: Mapping[str, Any] = field(default_factory=dict)


def load(settings: Settings) -> Configuration:
    """Read everything; what is wrong becomes a fault beside the providers that are right."""
    path = providers_file(settings)
    files = [path, *models.watched(settings)]
    found = _Found()
    with found.noting(FROM_ENVIRONMENT):
        found.add(_from_environment(settings))
    tables: dict[str, Any] = {}
    with found.noting(FILE_NAME, f"{path}: "):
        tables = tables_of(path)
    for name, table in tables.items():
        with found.noting(BUDGETS if _means_budgets(name, table) else name, f"{path}, [{name}]: "):
            if name == BUDGETS:
                _check_table(table)
                budget.parse(table)
                continue
            if _means_budgets(name, table):
                raise Misconfigured(f"is unknown; did you mean [{BUDGETS}]?")
            files += _key_files(table, settings)
            found.add(from_table(name, table, settings))
    with found.noting(LOCAL):
        from actors.switch.offline import folder  # which describes its models as a provider

        found.add(folder.provider(settings))
    return Configuration(tuple(found.providers), tuple(found.faults), tuple(files), _table(tables.get(BUDGETS)))


@dataclass
class _Found:
    providers: list[Provider] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(self, provider: Provider | None) -> None:
        self.providers += [provider] if provider else []

    @contextmanager
    def noting(self, name: str, where: str = "") -> Iterator[None]:
        """What is wrong inside becomes a fault of this name."""
        try:
            yield
        except Misconfigured as wrong:
            self.faults.append(Fault(name, f"{where}{wrong}"))


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
        key=checked_key(key, "VX11_LLM_KEY") if key else "",
        key_source="VX11_LLM_KEY" if key else "",
    )


def tables_of(path: Path) -> dict[str, Any]:
    """The tables as they are written; none when there is no file. Raises Misconfigured."""
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


def _table(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _means_budgets(name: str, table: Any) -> bool:
    """Also when it is misspelt: nothing is spent while somebody wants a budget and has none."""
    provider = isinstance(table, dict) and "url" in table
    return name == BUDGETS or (not provider and bool(difflib.get_close_matches(name.lower(), [BUDGETS], cutoff=0.8)))


def _check_table(table: Any) -> None:
    if not isinstance(table, dict):
        raise Misconfigured("is no table; write [name] on a line of its own and its lines below it")


def from_table(name: str, table: Any, settings: Settings) -> Provider:
    """One provider as its table describes it. Raises Misconfigured."""
    _check_table(table)
    if not NAME_FORM.fullmatch(name) or name in RESERVED_NAMES:
        raise Misconfigured(f"is no name for a provider: {NAME_FORM.pattern}, and not one of {', '.join(sorted(RESERVED_NAMES))}")
    _check_lines(table)
    traits = declared(table)
    besides, each = _models(table.get("models", []), traits)
    key, source = _key_of(table, settings)
    return Provider(
        name,
        _url(lines.text(table, "url", EXAMPLE), "url"),
        _model(lines.text(table, "model", 'for instance  model = "llama3.2"'), "model"),
        besides,
        key,
        source,
        lines.flag(table, "ask_usage", default=True),
        traits,
        each,
    )


def _check_lines(table: Mapping[str, Any]) -> None:
    for line, value in table.items():
        if line in ("key", "api_key", "token"):
            raise Misconfigured(f"a key does not belong into this file; use key_env or key_file instead of {line}")
        if isinstance(value, dict) and line != "models":
            raise Misconfigured(f"has a table {line} inside; write [{line}] if that is another provider")
    lines.check_known(table, LINES)


def _models(found: Any, base: Traits) -> tuple[tuple[str, ...], dict[str, Traits]]:
    """The names, and what is declared of those that have a table of their own."""
    if not isinstance(found, list | dict):
        raise Misconfigured('models must be a list; write models = ["one", "another"], or a table [name.models."one"] for each')
    if len(found) > MODELS_MAX:
        raise Misconfigured(f"models has more than {MODELS_MAX} names")
    names = tuple(_model(model, "models") for model in found)
    return names, {name: _model_traits(name, found[name], base) for name in names if isinstance(found, dict)}


def _model_traits(name: str, table: Any, base: Traits) -> Traits:
    try:
        if not isinstance(table, dict):
            raise Misconfigured(f'is no table; write [name.models."{name}"] on a line of its own')
        lines.check_known(table, DECLARED)
        return declared(table, base)
    except Misconfigured as wrong:
        raise Misconfigured(f"the model {name}: {wrong}") from wrong


def _url(text: str, what: str) -> str:
    try:
        return checked_url(text)
    except ValueError as wrong:
        raise Misconfigured(f"{what} {wrong}") from wrong


def _model(name: Any, what: str) -> str:
    if not isinstance(name, str) or not MODEL_FORM.fullmatch(name):
        raise Misconfigured(f"{what} must name a model in up to 200 characters without blanks")
    return name


def checked_key(text: str, what: str) -> str:
    """The key without blanks around it. Raises Misconfigured, whose message does not repeat it."""
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
        variable = lines.text(table, "key_env", 'for instance  key_env = "OPENAI_API_KEY"')
        return checked_key(_variable(variable, settings), variable), variable
    for path in _key_files(table, settings):
        return checked_key(_key_file(path), str(path)), str(path)
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
    return [settings.home / Path(lines.text(table, "key_file", 'for instance  key_file = "openai.key"')).expanduser()]


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
