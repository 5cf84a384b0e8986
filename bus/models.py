"""The folder of language models on this machine: which files are there, which of them is used, what each says of itself."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bus import gguf
from bus.settings import Settings
from schemas.errors import Failure

MIB = 1024 * 1024
ENDING = ".gguf"
USED = "used"
"""The file in `<home>/models` that names the model chosen by `vx11 models use`."""
NAME_MAX_BYTES = 200
NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
ODD = re.compile(r"[^A-Za-z0-9._+-]+")
PART = re.compile(r"(.+)-(\d{5})-of-(?!00000)(\d{5})")
"""A large model comes in several files; llama.cpp reads the others once it was given the first."""
NO_TALKERS = re.compile(r"clip|.*bert.*|t5encoder|wavtokenizer.*|.*-embedding")
"""Architectures that do not converse: they embed, see or speak."""
MODELS_MAX = 200
CONTEXT = 4_096
"""Tokens, unless VX11_MODEL_CONTEXT says otherwise: memory is taken for each."""
CONTEXT_MIN = 256
TALKS = 2
"""Conversations at once, each with the whole context."""
WORK_BYTES = 128 * MIB
"""What a loaded model takes beside its file and its conversations."""
SHARE = 2
"""Unless one was chosen: the largest model that fits into one part of so many of the free memory."""
LANGUAGES = {
    "en": "English", "es": "Spanish", "fr": "French", "de": "German", "it": "Italian", "pt": "Portuguese", "ca": "Catalan",
    "nl": "Dutch", "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ru": "Russian", "ar": "Arabic", "hi": "Hindi",
}  # fmt: skip
NAMED_LANGUAGES = 2
"""A note that would name more says "multilingual"."""
SAME_NAME = "has the same name as another"
UNREAD = gguf.Header()
ANSWER, SMALL_ANSWER = 1_024, 384
SMALL_BYTES = 300_000_000
"""Of a file: what is smaller has some hundred million parameters at most."""


@dataclass(frozen=True)
class Model:
    """One model of the folder. `fault`: why it cannot be used, empty when it can."""

    name: str
    path: Path
    bytes: int = 0
    header: gguf.Header = UNREAD
    fault: str = ""

    @property
    def note(self) -> str:
        """What is to be known wherever it answers."""
        return ", ".join(filter(None, ("offline model", self.header.size_label, _spoken(self.header.languages))))

    def context(self, settings: Settings) -> int:
        """Tokens of one conversation. Raises ValueError for a setting that is no number."""
        wanted = max(CONTEXT_MIN, round(settings.number("VX11_MODEL_CONTEXT", CONTEXT)))
        return min(wanted, self.header.context)

    @property
    def answer(self) -> int:
        """Tokens of one answer, unless the question says otherwise: a small model does not always know when it has said all."""
        return ANSWER if self.bytes >= SMALL_BYTES else SMALL_ANSWER

    def memory(self, settings: Settings) -> int:
        """About so many bytes while it is loaded."""
        return self.bytes + WORK_BYTES + TALKS * self.context(settings) * self.header.token_bytes


def house(settings: Settings) -> Path:
    """Where this home keeps what it knows of models, and by default the models."""
    return settings.home / "models"


def folder(settings: Settings) -> Path:
    mine = settings.get("VX11_MODELS_DIR")
    return Path(mine).expanduser().absolute() if mine else house(settings)


def watched(settings: Settings) -> tuple[Path, ...]:
    """What changes when a model comes or goes, grows while it is being copied, or another is chosen."""
    return tuple(dict.fromkeys((folder(settings), house(settings), *_files(settings))))


def listed(settings: Settings) -> list[Model]:
    """The models of the folder by name, those that cannot be used among them."""
    models = [_model(path) for path in _files(settings)]
    times = Counter(model.name for model in models)
    return [model if times[model.name] == 1 else replace(model, fault=SAME_NAME) for model in models]


def default(settings: Settings, models: Sequence[Model]) -> Model | None:
    """The chosen one, else the largest that fits, else the smallest."""
    usable = [model for model in models if not model.fault]
    wanted = chosen(settings)
    for model in usable:
        if model.name == wanted:
            return model
    room = free_memory() // SHARE
    fitting = [model for model in usable if model.memory(settings) <= room]
    if fitting:
        return max(fitting, key=lambda model: model.bytes)
    return min(usable, key=lambda model: model.bytes, default=None)


def chosen(settings: Settings) -> str:
    """The name that `choose` has kept; empty when the choice is left to VX11."""
    try:
        with (house(settings) / USED).open("rb") as file:
            return file.read(NAME_MAX_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def choose(settings: Settings, name: str) -> None:
    """Keep the choice; an empty name leaves it to VX11 again."""
    path = house(settings) / USED
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{USED}.{os.getpid()}")
    draft.write_text(f"{name}\n")
    draft.replace(path)


def find(settings: Settings, name: str) -> Model:
    """The model of this name. Raises Failure: `not_found`, `invalid` for a file that cannot be used."""
    files = _files(settings)
    named = [path for path in files if name_of(path) == name]
    if not named:
        had = ", ".join(map(name_of, files)) or "none"
        raise Failure(
            "not_found",
            f"there is no model {name!r} in {folder(settings)}; there: {had}",
            next=[["vx11 models ls", "what there is"]],
        )
    model = _model(named[0])
    if model.fault or len(named) > 1:
        raise Failure("invalid", f"{model.path} {model.fault or SAME_NAME}")
    return model


def free_memory() -> int:
    """Bytes that may be taken without harm: of the machine, and within the limits that this process is under."""
    if sys.platform != "linux":
        import psutil

        return int(psutil.virtual_memory().available)
    text = Path("/proc/meminfo").read_text()
    seen = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    free = int(seen[1]) * 1024 if seen else sys.maxsize
    return min(free, _left_in_group())


def _left_in_group() -> int:
    """What the control group of this process still allows (cgroup v2)."""
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        inside = Path("/sys/fs/cgroup") / group.lstrip("/")
        most = (inside / "memory.max").read_text().strip()
        used = int((inside / "memory.current").read_text())
        spare = re.search(r"^inactive_file (\d+)", (inside / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return sys.maxsize
    return sys.maxsize if most == "max" else max(0, int(most) - used + int(spare[1] if spare else 0))


def _files(settings: Settings) -> list[Path]:
    try:
        files = [path for path in folder(settings).iterdir() if path.name.endswith(ENDING) and not path.name.startswith(".")]
    except OSError:
        return []
    return sorted(path for path in files if _is_first(path))[:MODELS_MAX]


def _model(path: Path) -> Model:
    name = name_of(path)
    try:
        size = sum(part.stat().st_size for part in parts(path))
        header = gguf.read(path)
    except gguf.NoModel as wrong:
        return Model(name, path, fault=str(wrong))
    except OSError as wrong:
        return Model(name, path, fault=f"cannot be read: {wrong.strerror}")
    return Model(name, path, size, header, _fault(header))


def _fault(header: gguf.Header) -> str:
    if header.kind != "model" or NO_TALKERS.fullmatch(header.architecture):
        return f"holds no model that converses ({header.kind}, {header.architecture})"
    return ""


def name_of(path: Path) -> str:
    """What the model of this file is called: the name of the file, without what a name may not have."""
    stem = path.name.removesuffix(ENDING)
    part = PART.fullmatch(stem)
    return ODD.sub("-", part[1] if part else stem).lstrip("-._+")[:NAME_MAX_BYTES] or "model"


def _is_first(path: Path) -> bool:
    part = PART.fullmatch(path.name.removesuffix(ENDING))
    return part is None or int(part[2]) == 1


def parts(path: Path) -> list[Path]:
    """All files of the model that begins in this one."""
    part = PART.fullmatch(path.name.removesuffix(ENDING))
    if part is None:
        return [path]
    return [path.with_name(f"{part[1]}-{number:05}-of-{part[3]}{ENDING}") for number in range(1, int(part[3]) + 1)]


def _spoken(codes: Sequence[str]) -> str:
    if len(codes) > NAMED_LANGUAGES:
        return "multilingual"
    return " and ".join(LANGUAGES.get(code.lower()[:2], code) for code in codes)
