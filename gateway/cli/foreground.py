"""VX11 in the foreground: choose the doors, start the supervisor, say where everything is, stop in order.

What `vx11 up` becomes. Its imports are in every process of VX11, so it has little of the command line.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

from bus.daemon import LOOPBACK, free_port
from bus.process import die_with_parent
from bus.settings import Settings
from bus.supervisor import Supervisor, start_logging
from gateway.cli.screen import Screen
from gateway.http.settings import HttpSettings, Misconfigured
from gateway.tokens import TokenFile
from schemas.errors import Failure

log = logging.getLogger("vx11.up")

HTTP_PORT = 8_000
CONTROL_PORT = 8_001
PROBE_S = 0.5
PROBE_BYTES = 64
NICE = 10
SAYS_UP = "VX11 is up"
"""How the line begins that is printed once the gateway answers."""


def run(settings: Settings, screen: Screen, pull: str = "") -> int:
    """Until SIGTERM or Ctrl-C. `pull`: a model to fetch meanwhile.

    Raises Failure when it cannot start; returns 78 for settings that are refused.
    """
    start_logging()
    settings = with_doors(settings)
    try:
        http = HttpSettings.read(settings)
    except Misconfigured as error:
        screen.talk(str(error))
        return error.exit_code
    supervisor, fetching = Supervisor(settings), Fetching(settings, pull)
    began = time.monotonic()
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = TokenFile(settings.home).ensure() if http.auth_mode == "token" and not http.token else ""
        supervisor.start()
        banner = Banner(supervisor, screen, token, began)
        supervisor.watch(lambda: banner.tick() or fetching.tick())
    finally:
        fetching.stop()
        supervisor.close()
    screen.talk("VX11 has stopped")
    return 0


def main() -> int:
    screen = Screen()
    try:
        return run(Settings.read(os.environ), screen, *sys.argv[2:])  # behind --pull
    except Failure as failure:
        return screen.failure(failure)


class Fetching:
    """A `vx11 models pull` beside the running system. It delays and fails nothing; what it says goes where we say ours."""

    def __init__(self, settings: Settings, model: str) -> None:
        self._home = settings.home
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None

    def tick(self) -> bool:
        """Begin with the first call; the end of it is noticed by a later one. False: there is no hurry."""
        if self._model:
            words = ["-m", "gateway.cli", "--home", str(self._home), "models", "pull", self._model, "--unless-removed"]
            us = os.getpid()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    [sys.executable, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    preexec_fn=lambda: _behind(us),  # noqa: PLW1509 - three system calls, no lock
                )
            except (OSError, subprocess.SubprocessError) as error:
                log.warning("%s is not fetched: %s; run  vx11 models pull %s", self._model, error, self._model)
            self._model = ""
        if self._process and self._process.poll() is not None:
            self._process = None
        return False

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()


def _behind(parent: int) -> None:
    """Before the program begins: it ends with us, and leaves the processor to whoever wants it."""
    die_with_parent(parent)
    os.nice(NICE)


def with_doors(settings: Settings) -> Settings:
    """The usual ports where they are free and nobody chose others, else free ones: kept for this run."""
    chosen = dict(settings.variables)
    chosen.setdefault("VX11_HTTP_BIND", f"{LOOPBACK}:{free_port(HTTP_PORT)}")
    chosen.setdefault("VX11_CONTROL_BIND", f"{LOOPBACK}:{free_port(CONTROL_PORT)}")
    return replace(settings, variables=chosen)


class Banner:
    """Printed once, when the gateway answers."""

    def __init__(self, supervisor: Supervisor, screen: Screen, token: str, began: float) -> None:
        self._supervisor = supervisor
        self._screen = screen
        self._token = token
        self._began = began
        self._done = False

    def tick(self) -> bool:
        """Whether there is still something to say."""
        if self._done:
            return False
        told = self._supervisor.document()
        if not _answers(told["http_url"]):
            return True
        self._done = True
        line = self._screen.line
        line(f"{SAYS_UP} after {time.monotonic() - self._began:.1f} s (pid {os.getpid()}, home {self._supervisor.settings.home})")
        line(f"  gateway        {told['http_url']}")
        if told["control_url"]:
            line(f"  control plane  {told['control_url']}  (this machine only)")
        line(f"  bus            {told['nats_url']}")
        if self._token:
            line(f"  your token, shown this once; it is kept in {self._supervisor.settings.home}/tokens.env:")
            line(f"  export VX11_TOKEN={self._token}")
        sys.stdout.flush()
        return False


def _answers(url: str) -> bool:
    """By hand: urllib is in every process that is forked from this one, and would ask a proxy that the environment names."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_S) as door:
            door.sendall(b"GET /health/ready HTTP/1.0\r\n\r\n")
            return door.recv(PROBE_BYTES).split(b" ")[1:2] == [b"200"]
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
