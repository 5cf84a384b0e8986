"""Writing `providers.toml` for the API: one table is changed, and all else stays as people wrote it.

What is sent is checked exactly as it is at load. A key never stands in the file: it goes into a file of its own that nobody
else can read. A key that is there already, in a file or a variable, is not sent to another place than it was given for.
"""

from __future__ import annotations

import difflib
import errno
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.switch.asking.address import same_place
from actors.switch.configured import offers
from actors.switch.configured.lines import Misconfigured
from actors.switch.configured.providers import (
    FILE_MAX_BYTES,
    FROM_ENVIRONMENT,
    RESERVED_NAMES,
    checked_key,
    from_table,
    providers_file,
    tables_of,
)
from bus.settings import Settings
from bus.users import write_secret
from schemas.errors import Failure

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

KEYS = "keys"
KEY_LINES = ("key_env", "key_file")


def set_provider(settings: Settings, name: str, lines: Mapping[str, Any], key: str | None) -> None:
    """Describe a provider by exactly these lines. `key`: an empty one takes the key away, None keeps the one that is there.

    Raises Failure: `invalid` for what could not be loaded, `conflict` when the file cannot be changed, `storage_full`.
    """
    with _told(settings):
        text, tables = _read(settings)
        before = tables.get(name)
        if "key_file" in lines:
            raise Misconfigured("key_file is written by hand only; send the key itself, or key_env")
        from_table(name, dict(lines), settings)
        wanted = dict(lines) | _key_lines(name, lines, before, key)
        _check_variable(lines, before)
        secret = checked_key(key, "key") if key else ""
        if not secret:
            from_table(name, wanted, settings)
        written = _changed(text, tables, name, wanted)
        with _stored(settings.home / _key_file(name), secret) if secret else nullcontext():
            _write(settings, text, written)
        if wanted.get("key_file") != _key_file(name):
            _drop_key(settings, name, before)


def remove_provider(settings: Settings, name: str) -> None:
    """Raises Failure: `not_found`, `invalid` for what is no provider of the file, `conflict`, `storage_full`."""
    with _told(settings):
        if name == FROM_ENVIRONMENT:
            raise Misconfigured("this one is described by VX11_LLM_URL, VX11_LLM_MODEL and VX11_LLM_KEY; unset those")
        if name in RESERVED_NAMES:
            raise Misconfigured(f"{name} is no provider of the file")
        text, tables = _read(settings)
        if name not in tables:
            near = difflib.get_close_matches(name, tables, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Failure("not_found", f"there is no provider {name!r} in {providers_file(settings)}{hint}", provider=name)
        _write(settings, text, _changed(text, tables, name, None))
        _drop_key(settings, name, tables[name])


def _key_file(name: str) -> str:
    """Where a key that was sent is kept, from the data folder."""
    return f"{KEYS}/{name}.key"


@contextmanager
def _stored(file: Path, key: str) -> Iterator[None]:
    """The key is there, unless what is done inside fails: the new key must not be sent to the old url."""
    before = file.read_text("utf-8", "replace").strip() if file.exists() else ""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_secret(file, key)
    try:
        yield
    except (Failure, OSError):
        file.unlink()
        if before:
            write_secret(file, before)
        raise


def _check_variable(lines: Mapping[str, Any], before: Any) -> None:
    """Raises Misconfigured where nobody at this machine has sent the variable: it would be told to whoever lives there."""
    variable, url = lines.get("key_env"), lines["url"]
    there = isinstance(before, dict) and before.get("key_env") == variable and _stays(before.get("url"), url)
    known = any(one.variable == variable and _stays(one.url, url) for one in offers.KNOWN)
    if variable and not (there or known):
        raise Misconfigured(f"key_env = {variable} at this url is written by hand only; send the key itself")


def _stays(old: Any, new: str) -> bool:
    """Whether a key for the one url may be sent to the other."""
    return isinstance(old, str) and same_place(old, new) and old.partition(":")[0] == new.partition(":")[0]


def _key_lines(name: str, lines: Mapping[str, Any], before: Any, key: str | None) -> dict[str, Any]:
    """What the table says of the key besides. Raises Misconfigured when the one that is there is for another place."""
    if key and "key_env" in lines:
        raise Misconfigured("has key_env and a key; send one")
    if key:
        return {"key_file": _key_file(name)}
    if key == "" or "key_env" in lines or not isinstance(before, dict):
        return {}
    kept = {line: before[line] for line in KEY_LINES if line in before}
    if kept and not _stays(before.get("url"), lines["url"]):
        raise Misconfigured("the key that is there was given for another url; send this one's, or an empty key for none")
    return kept


def _changed(text: str, tables: Mapping[str, Any], name: str, wanted: Mapping[str, Any] | None) -> str:
    """The file's text with this table, or without it. Raises Misconfigured."""
    import tomlkit  # only those who change the file pay for it
    from tomlkit.exceptions import TOMLKitError

    meant = {other: table for other, table in tables.items() if other != name}
    if wanted is not None:
        meant[name] = dict(wanted)
    for attempt in (_in_place, _anew):
        try:
            document = tomlkit.parse(text)
            attempt(document, name, wanted)
            made = tomlkit.dumps(document)
            whole = tomllib.loads(made) == meant
        except (TOMLKitError, LookupError, TypeError, ValueError):  # its ways of saying that it cannot
            continue
        if whole and len(made.encode()) <= FILE_MAX_BYTES:
            return made
        if whole:
            raise Misconfigured(f"the file would have more than {FILE_MAX_BYTES} bytes")
    raise Misconfigured("these lines cannot be written as TOML; only texts, numbers, true, false, lists and tables can")


def _in_place(document: TOMLDocument, name: str, wanted: Mapping[str, Any] | None) -> None:
    """Line by line, so that comments and the order of the lines stay."""
    if wanted is None or name not in document:
        _anew(document, name, wanted)
        return
    table: Any = document[name]
    for line in [line for line in table if line not in wanted]:
        del table[line]
    for line, value in wanted.items():
        if line not in table or table[line] != value:
            table[line] = value


def _anew(document: TOMLDocument, name: str, wanted: Mapping[str, Any] | None) -> None:
    import tomlkit

    if name in document:
        del document[name]
    if wanted is None:
        return
    table = tomlkit.table()
    for line, value in sorted(wanted.items(), key=lambda pair: isinstance(pair[1], dict)):
        table.add(line, value)
    if document.as_string().strip():
        document.add(tomlkit.nl())
    document.add(name, table)


def _read(settings: Settings) -> tuple[str, dict[str, Any]]:
    """The text and its tables. Raises Failure `conflict` when they cannot be changed without guessing."""
    path = providers_file(settings)
    try:
        tables = tables_of(path)
    except Misconfigured as wrong:
        raise Failure("conflict", f"{path} {wrong}; mend that first") from None
    return (path.read_text("utf-8") if path.exists() else ""), tables


def _write(settings: Settings, before: str, text: str) -> None:
    """Whole or not at all, readable by its owner only; never over what somebody else has written meanwhile."""
    path = providers_file(settings).resolve()
    if (path.read_text("utf-8") if path.exists() else "") != before:
        raise Failure("conflict", f"{path} was changed by somebody else at this moment; look at it, and try again")
    write_secret(path, text.rstrip("\n"))


def _drop_key(settings: Settings, name: str, before: Any) -> None:
    """Remove the key file that was written here, and that nobody needs any more."""
    if isinstance(before, dict) and before.get("key_file") == _key_file(name):
        (settings.home / _key_file(name)).unlink(missing_ok=True)


@contextmanager
def _told(settings: Settings) -> Iterator[None]:
    """What is wrong as a Failure."""
    try:
        yield
    except Misconfigured as wrong:
        raise Failure("invalid", str(wrong)) from None
    except OSError as wrong:
        code = "storage_full" if wrong.errno in (errno.ENOSPC, errno.EDQUOT) else "conflict"
        raise Failure(code, f"{providers_file(settings)} cannot be written: {wrong.strerror}") from wrong
