"""What the gateway may be told: every limit and clock with its default, and where its value came from."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bus import Settings
from bus.redaction import names_a_secret, without_credentials
from bus.space import Reserve
from schemas.message import HIDDEN

EX_CONFIG = 78
ANY_ORIGIN = "*"
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
LOCAL_TOKEN_CHARS = 32
"""A token of the user's own may be shorter only while nobody but this machine can reach the door."""


class Misconfigured(Exception):
    """What the gateway was told cannot be; a `__main__` ends with `exit_code`."""

    exit_code = EX_CONFIG


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Setting(NamedTuple):
    """One effective setting, fit to be shown."""

    name: str
    value: str
    source: str


def _knob(variable: str, default: Any, why: str) -> Any:
    return field(default=default, metadata={"variable": variable, "default": default, "why": why})


@dataclass(frozen=True)
class HttpSettings:
    """Times in seconds, sizes in bytes. A limit of 0 means none, where its line says so."""

    home: Path = Path("data")
    bind: str = _knob("VX11_HTTP_BIND", "127.0.0.1:8000", "the door")
    control_bind: str = _knob("VX11_CONTROL_BIND", "127.0.0.1:8001", "the loopback alias of the control plane; `off` for none")
    auth_mode: str = _knob("VX11_AUTH_MODE", "token", "token or off")
    token: str = _knob("VX11_TOKEN", "", "one token that may do everything, beside the tokens file")
    trusted_proxies: str = _knob("VX11_TRUSTED_PROXIES", "", "addresses whose X-Forwarded-For counts, separated by commas")
    cors_origins: str = _knob("VX11_CORS_ORIGINS", "", "origins whose pages may ask under /v1, separated by commas; * is every")
    header_s: float = _knob("VX11_HTTP_HEADER_S", 5.0, "for the head of a request, from the connection or its first byte on")
    body_s: float = _knob("VX11_HTTP_BODY_S", 15.0, "for a body, and a second more for each 64 KiB that it announces")
    keepalive_s: float = _knob("VX11_HTTP_KEEPALIVE_S", 75.0, "an idle connection is closed after")
    body_bytes: float = _knob("VX11_HTTP_BODY_BYTES", 1_048_576.0, "a longer body is too_large")
    connections: float = _knob("VX11_HTTP_CONNECTIONS", 256.0, "at a time")
    address_connections: float = _knob("VX11_HTTP_ADDRESS_CONNECTIONS", 32.0, "at a time from one address; loopback is exempt")
    rate: float = _knob("VX11_HTTP_RATE", 200.0, "requests a second for one token; 0 is no limit")
    burst: float = _knob("VX11_HTTP_BURST", 400.0, "requests of one token that may come at once")
    in_flight: float = _knob("VX11_HTTP_IN_FLIGHT", 1_024.0, "requests at a time")
    streams: float = _knob("VX11_HTTP_STREAMS", 64.0, "event streams at a time")
    token_streams: float = _knob("VX11_HTTP_TOKEN_STREAMS", 16.0, "event streams of one token at a time")
    heartbeat_s: float = _knob("VX11_HTTP_HEARTBEAT_S", 15.0, "a silent event stream says that it is alive each")
    stream_s: float = _knob("VX11_HTTP_STREAM_S", 1_800.0, "an event stream ends after, and the client comes back")
    write_s: float = _knob("VX11_HTTP_WRITE_S", 10.0, "a reader that takes nothing for so long is let go")
    stop_s: float = _knob("VX11_HTTP_STOP_S", 30.0, "requests under way may finish for so long when the gateway stops")
    reserve_mb: float = _knob("VX11_DISK_RESERVE_MB", 512.0, "kept free on the disk, at most 5 % of it unless set; 0 is none")
    other: Mapping[str, str] = field(default_factory=dict)
    """The variables that were set and are not the gateway's own."""
    given: frozenset[str] = frozenset()
    """The variables of the gateway that were set."""

    @classmethod
    def read(cls, settings: Settings) -> HttpSettings:
        """Raises Misconfigured for a value that cannot be."""
        told: dict[str, Any] = {}
        knobs = [f for f in dataclasses.fields(cls) if f.metadata]
        for knob in knobs:
            variable, default = str(knob.metadata["variable"]), knob.metadata["default"]
            try:
                number = isinstance(default, float)
                told[knob.name] = settings.number(variable, default) if number else settings.get(variable, default)
            except ValueError as error:
                raise Misconfigured(str(error)) from error
        mine = {knob.metadata["variable"] for knob in knobs}
        given = frozenset(name for name in mine if settings.get(name))
        other = {name: text for name, text in settings.variables.items() if name not in mine}
        made = cls(home=settings.home, other=other, given=given, **told)
        made.check()
        return made

    def check(self) -> None:
        """Raises Misconfigured for what must not be started."""
        if self.auth_mode not in ("token", "off"):
            raise Misconfigured(f"VX11_AUTH_MODE={self.auth_mode!r}; it is token or off")
        for name in (
            "header_s",
            "body_s",
            "keepalive_s",
            "body_bytes",
            "connections",
            "in_flight",
            "burst",
            "write_s",
            "heartbeat_s",
        ):
            if getattr(self, name) <= 0:
                raise Misconfigured(f"{self.variable(name)} must be more than 0")
        self._check_origins()
        if not 0 <= self.reserve_mb < math.inf:
            raise Misconfigured(f"VX11_DISK_RESERVE_MB={self.reserve_mb:g} is no size; write for instance 512, or 0 for none")
        local = is_loopback(self.public.host)
        if self.auth_mode == "off" and not local:
            raise Misconfigured(f"VX11_AUTH_MODE=off is for loopback only, not for {self.public}; use token")
        if 0 < len(self.token) < LOCAL_TOKEN_CHARS and not local:
            raise Misconfigured(f"VX11_TOKEN is shorter than {LOCAL_TOKEN_CHARS} characters; make one with `vx11 token new`")
        if (control := self.control) and not is_loopback(control.host):
            raise Misconfigured(f"VX11_CONTROL_BIND must be loopback, not {control}")

    def _check_origins(self) -> None:
        for origin in self.origins - {ANY_ORIGIN}:
            if not ORIGIN.fullmatch(origin):
                told = "write for instance https://app.example or http://localhost:3000, without a path"
                raise Misconfigured(f"VX11_CORS_ORIGINS: {origin!r} is no origin; {told}")
        if ANY_ORIGIN in self.origins and self.auth_mode == "off":
            raise Misconfigured("VX11_CORS_ORIGINS=* with VX11_AUTH_MODE=off would let every web page in; name the origins")

    @cached_property
    def origins(self) -> frozenset[str]:
        """Whose pages may ask."""
        return frozenset(part.strip() for part in self.cors_origins.split(",") if part.strip())

    @cached_property
    def reserve(self) -> Reserve:
        """The room that must stay free."""
        return Reserve(self.home, self.reserve_mb if "VX11_DISK_RESERVE_MB" in self.given else None)

    @property
    def public(self) -> Address:
        return address(self.bind)

    @property
    def control(self) -> Address | None:
        return None if self.control_bind == "off" else address(self.control_bind)

    @property
    def proxies(self) -> frozenset[str]:
        return frozenset(part.strip() for part in self.trusted_proxies.split(",") if part.strip())

    @classmethod
    def variable(cls, name: str) -> str:
        return next(str(f.metadata["variable"]) for f in dataclasses.fields(cls) if f.name == name)

    def effective(self) -> list[Setting]:
        """Every setting with its source, secrets not shown."""
        shown = [Setting("VX11_HOME", str(self.home), "environment" if "VX11_HOME" in self.other else "default")]
        for knob in dataclasses.fields(self):
            if not knob.metadata:
                continue
            variable = knob.metadata["variable"]
            value = getattr(self, knob.name)
            text = f"{value:.12g}" if isinstance(value, float) else str(value)
            shown.append(Setting(variable, redacted(variable, text), "environment" if variable in self.given else "default"))
        rest = sorted(self.other.items())
        return shown + [Setting(name, redacted(name, text), "environment") for name, text in rest if name != "VX11_HOME"]


def redacted(name: str, value: str) -> str:
    """The value as it may be shown: secrets hidden by their name, and users inside URLs."""
    if names_a_secret(name) or name.endswith("_HEADERS"):
        return HIDDEN if value else ""
    return without_credentials(value)


def address(text: str) -> Address:
    """`host:port` or `[host]:port`. Raises Misconfigured."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise Misconfigured(f"{text!r} is no address; write for instance 127.0.0.1:8000")
    return Address(host.strip("[]"), int(port))


def is_loopback(host: str) -> bool:
    """True when `host`, and all that its name stands for, can be reached from this machine only."""
    try:
        found = {str(ipaddress.ip_address(host))}
    except ValueError:
        found = _looked_up(host)
    return all(ipaddress.ip_address(one).is_loopback for one in found)


def _looked_up(name: str) -> set[str]:
    try:
        return {str(entry[4][0]).split("%")[0] for entry in socket.getaddrinfo(name, None)}
    except OSError as error:
        raise Misconfigured(f"{name!r} is neither an address nor a name that can be found: {error}") from error
