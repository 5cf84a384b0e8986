"""The users of the bus: their NKey seeds and what each may publish and subscribe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nkeys

from schemas.errors import Failure
from schemas.message import RESERVED

USERS = ("madre", "host", "gateway", "keeper", "actor", "client")
INBOX = "_INBOX"
"""What the inboxes of all users begin with."""
SEED_BYTES = 32
"""Entropy of an Ed25519 seed."""

_READ = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.DIRECT.GET.>",
    "$JS.API.CONSUMER.>",
    "$JS.ACK.>",
    "$JS.FC.>",
)
"""Enough to read streams and buckets; nothing here can change or remove a message or a stream."""

_VERBS = ("vx11.*.*",)


def _no_verbs(*but: str) -> tuple[str, ...]:
    """What `vx11.*.*` would let through although it is no request, less the tokens in `but`."""
    return tuple(f"vx11.{token}.*" for token in sorted(RESERVED.difference(but)))


@dataclass(frozen=True)
class Permissions:
    """Subjects that a user may publish and subscribe. Nothing else is allowed, and a denial beats an allowance.

    Wildcards stand for whole tokens. Who answers may publish to every inbox: a responder cannot know whose it is.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_not: tuple[str, ...] = ()
    subscribe_not: tuple[str, ...] = ()
    answers: bool = True


_MADRES_OWN = ("vx11.madre.register", "vx11.events.madre.>")
"""Who can be started is a host's word, and who is madre is hers."""
_KEEPERS_OWN = ("vx11.events.keeper.>",)
"""Whether the log is whole."""

_TABLE = {
    "madre": Permissions(
        publish=("vx11.>", "$SRV.>", "$KV.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>"),
        subscribe=("vx11.>", "$SRV.>", "$JS.EVENT.ADVISORY.>"),
    ),
    "host": Permissions(
        publish=(
            "vx11.madre.*",
            "vx11.events.power.waking.*",
            "vx11.events.power.exited.*",
            "vx11.events.host.*",
            "vx11.events.supervisor.*",
            "$JS.API.DIRECT.GET.VX11_EVENTS",
            "vx11.hb.>",
        ),
        subscribe=("vx11.events.power.>", "vx11.events.madre.*", "vx11.host.>", "$SRV.>"),
    ),
    "gateway": Permissions(
        publish=(*_VERBS, "vx11.events.>", "vx11.calls.*.*", "vx11.dlq.*.*", "vx11.hb.tentaculo_link.*", "$SRV.>", *_READ),
        publish_not=(*_no_verbs(), "vx11.events.power.>", "vx11.events.dlq.>", *_MADRES_OWN, *_KEEPERS_OWN),
        subscribe=("vx11.events.>", "vx11.hb.>", "vx11.calls.>", "vx11.tentaculo_link.>", "$SRV.>"),
    ),
    "keeper": Permissions(
        publish=(
            *_VERBS,
            "vx11.events.>",
            "vx11.sandbox.*.>",
            "vx11.jobs.dlq.again.*.*",
            "vx11.dlq.>",
            "vx11.calls.keeper.*",
            "vx11.hb.keeper.*",
            *_READ,
            "$JS.API.STREAM.PURGE.*",
            "$JS.API.STREAM.MSG.DELETE.*",
        ),
        publish_not=(*_no_verbs("dlq"), "vx11.events.power.>", *_MADRES_OWN),
        subscribe=("vx11.events.>", "vx11.calls.>", "vx11.dlq.>", "vx11.keeper.>", "$SRV.>", "$JS.EVENT.ADVISORY.>"),
    ),
    "actor": Permissions(
        publish=(
            *_VERBS,
            "vx11.events.*.*",
            "vx11.events.power.active.*",
            "vx11.events.power.slept.*",
            "vx11.events.dlq.tried.*.*",
            "vx11.calls.*.*",
            "vx11.jobs.>",
            "vx11.dlq.>",
            "vx11.hb.>",
            "$SRV.>",
            "$KV.VX11_ACTORS.>",
            "$KV.VX11_USAGE.*",
            "$JS.API.INFO",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.DIRECT.GET.>",
            "$JS.API.CONSUMER.>",
            "$JS.ACK.>",
        ),
        publish_not=(*_no_verbs("jobs", "dlq", "hb"), "vx11.events.power.*", "vx11.jobs.dlq.>", *_MADRES_OWN, *_KEEPERS_OWN),
        subscribe=("vx11.>", "$SRV.>"),
        subscribe_not=("vx11.host.>",),
    ),
    "client": Permissions(
        publish=(*_VERBS, "vx11.events.>", "vx11.sandbox.*.>", "$SRV.>", *_READ),
        publish_not=(*_no_verbs(), "vx11.events.power.>", "vx11.events.dlq.>", *_MADRES_OWN, *_KEEPERS_OWN),
        subscribe=("vx11.events.>", "vx11.calls.>", "vx11.dlq.>", "vx11.hb.>", "vx11.sandbox.>"),
        answers=False,
    ),
}


def inbox_prefix(user: str) -> str:
    """What the inboxes of `user` begin with; `client` has the stock default: a stock client needs no setting."""
    return INBOX if user == "client" else f"{INBOX}_{user}"


def may_answer(user: str) -> bool:
    """Whether `user` may publish to the inboxes of others."""
    return user in _TABLE and _TABLE[user].answers


def answerable(reply: str) -> str:
    """`reply` when it is somebody's inbox, else empty.

    The server asks whether we may publish there, not whether the one who asks may: an answer to any other subject would
    be an order or a record in our name.
    """
    return reply if reply.startswith(INBOX) else ""


def permissions(user: str) -> str:
    """The `permissions` block of `user` as nats-server configuration."""
    may = _TABLE[user]
    answered = USERS if may.answers else (user,)  # a barrier is an echo from oneself
    inboxes = tuple(f"{inbox_prefix(other)}.>" for other in answered)
    publish = f"allow: {_list(may.publish + inboxes)}, deny: {_list(may.publish_not)}"
    subscribe = f"allow: {_list((*may.subscribe, f'{inbox_prefix(user)}.>'))}, deny: {_list(may.subscribe_not)}"
    return f"{{ publish: {{ {publish} }}, subscribe: {{ {subscribe} }} }}"


def make_seeds(folder: Path) -> dict[str, str]:
    """Make `<folder>/<user>.nk` (0600) for each user that has none; user to public key.

    Raises Failure("invalid") when a file holds no seed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {user: _public_key(folder / f"{user}.nk") for user in USERS}


def _public_key(path: Path) -> str:
    if not path.exists():
        write_secret(path, nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER).decode())
    path.chmod(0o600)
    try:
        pair = nkeys.from_seed(bytearray(path.read_bytes().strip()))
        return str(pair.public_key.decode())
    except (nkeys.NkeysError, ValueError) as error:
        raise Failure("invalid", f"{path} holds no NKey seed; remove it and a new one is made") from error


def write_secret(path: Path, text: str) -> None:
    """Write `path` whole or not at all, readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _list(subjects: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{subject}"' for subject in subjects) + "]"
