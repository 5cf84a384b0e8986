"""The parent of everything: starts the servers, forks the services from one image, starts again what ends, stops in order."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bus import image
from bus.daemon import Daemon, free_port
from bus.loading import check_told
from bus.logs import keep_short
from bus.nats_server import PREFERRED_PORT as NATS_PORT
from bus.nats_server import NatsServer
from bus.process import close_others, die_with_parent, forget_files, is_same, started_at, write_output_to
from bus.redaction import Redacting, know_settings
from bus.redis_server import PREFERRED_PORT as REDIS_PORT
from bus.redis_server import RedisServer
from bus.settings import Settings
from bus.users import write_secret
from schemas.errors import Failure

if TYPE_CHECKING:
    from bus.mending import Mending
    from schemas.message import Event

log = logging.getLogger("vx11.supervisor")

VERSION = "8.0.0.dev0"
SERVICES = {
    "madre": "actors.madre.main:run",
    "host": "bus.host:run",
    "keeper": "actors.keeper.main:run",
    "tentaculo_link": "gateway.http.main:run",
}
"""What is forked, by name, so that this package imports neither actors nor gateway."""
HOST = "host"
"""Is forked first: whatever wakes has what it has, and that should be no more than actors need."""
STEADY_S = 1.0
"""A service that lived shorter than this died young."""
YOUNG_FREE = 5
"""So many young deaths in a row are answered at once; then it is started again more slowly each time."""
AGAIN_FIRST_S = 0.05
AGAIN_MOST_S = 2.0
LOOK_S = 1.0
"""Between two looks at what nobody tells of; an end does (SIGCHLD)."""
SOON_S = 0.05
LOGS_S = 5.0
"""Between two looks at the length of the logs."""
STOP_S = 60.0
"""Time for each service to finish its work before it is killed."""
STOP_ORDER = ("tentaculo_link", "host", "madre", "keeper")
"""The keeper last: it sees what the others say at their end."""


@dataclass
class Pace:
    """When what has ended is started again. Times are those of the monotonic clock; `due` is None while it runs."""

    begun: float = 0.0
    due: float | None = None
    young_deaths: int = 0

    def start(self, now: float) -> None:
        self.begun, self.due = now, None

    def end(self, now: float) -> None:
        """At once; more slowly each time if it dies young again and again."""
        self.young_deaths = 0 if now - self.begun > STEADY_S else self.young_deaths + 1
        late = self.young_deaths - YOUNG_FREE
        self.due = now + (min(AGAIN_FIRST_S * 2.0**late, AGAIN_MOST_S) if late > 0 else 0.0)


@dataclass
class Service:
    """One forked process."""

    name: str
    target: str
    pid: int = 0
    born: float = 0.0


@dataclass
class Supervisor:
    """`start`, then `watch` until `stop` was asked for; `close` in any case."""

    settings: Settings
    names: tuple[str, ...] = tuple(SERVICES)
    services: list[Service] = field(default_factory=list)
    daemons: dict[str, Daemon] = field(default_factory=dict)
    paces: dict[str, Pace] = field(default_factory=lambda: defaultdict(Pace))
    """Of each service and each server."""
    stopping: bool = False
    logs_due: float = 0.0
    mending: Mending | None = None
    untold: list[Event] = field(default_factory=list)
    teller: int = 0
    """The process that stores what this one has to tell, which has no connection; 0 when there is nothing to tell."""
    unwritten: bool = False
    """The run file is not what it should be: there was no room for it."""
    nats_url: str = ""
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))

    def start(self) -> None:
        """Raises Failure: `conflict` when this home is in use, `unavailable` when a server does not start."""
        check_told(self.settings)
        self._refuse_second()
        from bus.mending import Mending  # here, as the command line needs none of it
        from bus.space import Reserve

        reserve = Reserve.of(self.settings)
        self.settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start_nats()
        self._start_redis()
        image.begin(self.settings)
        self.services = [Service(name, SERVICES[name]) for name in self.names]
        for of_actors in (True, False):
            forked = [service for service in self.services if (service.name == HOST) == of_actors]
            image.add(*(service.target.partition(":")[0] for service in forked))
            for service in forked:
                self._fork(service)
        for name in (*self.daemons, *self.names):
            self.paces[name].start(time.monotonic())
        server = self.daemons.get("nats-server")
        self.mending = Mending(reserve, self.settings.home / "logs" / "nats.log", server.stop if server else None)
        self.write_run_file()
        forget_files()

    def watch(self, tick: Callable[[], bool] = lambda: False) -> None:
        """Start again what ends, until SIGTERM or SIGINT. `tick` is called now and then; True: again soon."""
        woken, wake = os.pipe()
        for fd in (woken, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stopping", True))
        soon = True
        while not self.stopping:
            ready, _, _ = select.select([woken], [], [], self._pause(SOON_S if soon else LOOK_S))
            if ready:
                os.read(woken, 4096)
            self._look()
            self._keep_logs_short()
            self._look_at_room()
            soon = tick()
        signal.set_wakeup_fd(-1)

    def close(self) -> None:
        """Stop in order: the door, the actors, madre, the servers. Returns when all are gone."""
        for name in STOP_ORDER:
            for service in self.services:
                if service.name == name and service.pid:
                    _end(service.pid, STOP_S)
                    service.pid = 0
        if self.teller:
            _end(self.teller, SOON_S)
        for daemon in reversed(self.daemons.values()):
            daemon.stop()
        if self._ours():
            self.settings.run_file.unlink(missing_ok=True)

    def _start_nats(self) -> None:
        self.nats_url = self.settings.get("VX11_NATS_URL")
        if not self.nats_url:
            server = NatsServer(self.settings, free_port(int(self.settings.number("VX11_NATS_PORT", NATS_PORT))))
            server.start()
            self.daemons["nats-server"] = server
            self.nats_url = server.url

    def _start_redis(self) -> None:
        url = self.settings.get("VX11_REDIS_URL")
        if not url:
            server = RedisServer(self.settings, free_port(int(self.settings.number("VX11_REDIS_PORT", REDIS_PORT))))
            server.start()
            self.daemons["redis"] = server
            url = server.url
        variables = {**self.settings.variables, "VX11_REDIS_URL": url, "VX11_NATS_URL": self.nats_url}
        self.settings = replace(self.settings, variables=variables)
        know_settings(variables)

    def _fork(self, service: Service) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            _be(service.name, lambda: _entry(service.target)(self.settings, self.nats_url), self.settings, parent)
        service.pid, service.born = pid, started_at(pid)

    def _look(self) -> None:
        now = time.monotonic()
        for service in self.services:
            code = _reaped(service.pid) if service.pid else None
            if code is not None:
                service.pid = 0
            self._keep_up(service.name, code, partial(self._fork, service), now)
        for name, daemon in self.daemons.items():
            self._keep_up(name, daemon.process.poll() if daemon.process else None, daemon.spawn, now)

    def _keep_up(self, name: str, code: int | None, start: Callable[[], object], now: float) -> None:
        """`code`: what it has ended with; None while it runs, or when that has been heard of."""
        pace = self.paces[name]
        if code is not None and pace.due is None:
            log.warning("%s ended with %s and is started again", name, code)
            pace.end(now)
        if pace.due is not None and now >= pace.due:
            try:
                start()
            except (OSError, Failure) as error:  # no room on the disk, no memory, its data in use: it may be better soon
                log.error("%s cannot be started just now: %s", name, error)
                pace.due = now + AGAIN_MOST_S
                return
            pace.start(time.monotonic())
            self._note_run()

    def _look_at_room(self) -> None:
        if self.unwritten:
            self._note_run()
        if self.mending:
            self.untold += self.mending.look()
        if self.teller and _reaped(self.teller) is not None:
            self.teller = 0
        if self.untold and not self.teller:
            self._tell()

    def _tell(self) -> None:
        """One process at a time, so that the events keep their order."""
        from bus.mending import tell

        events, parent = self.untold, os.getpid()
        try:
            self.teller = os.fork()
        except OSError as error:
            log.error("what is to be told is told later: %s", error)
            return
        self.untold = []
        if not self.teller:
            _be("supervisor", lambda: tell(self.settings, self.nats_url, events), self.settings, parent)

    def _note_run(self) -> None:
        """Write the run file, or again at the next look: a full disk must not end this process."""
        try:
            self.write_run_file()
            self.unwritten = False
        except OSError as error:
            if not self.unwritten:
                log.error("the run file cannot be written just now: %s", error)
            self.unwritten = True

    def _keep_logs_short(self) -> None:
        if time.monotonic() >= self.logs_due:
            self.logs_due = time.monotonic() + LOGS_S
            keep_short(self.settings.home / "logs")

    def _pause(self, most: float) -> float:
        """Seconds until the next look: until the next start that is due, at most `most`."""
        due = [pace.due - time.monotonic() for pace in self.paces.values() if pace.due is not None]
        return max(0.0, min([most, *due]))

    def _refuse_second(self) -> None:
        try:
            found = json.loads(self.settings.run_file.read_text())["supervisor"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if is_same(int(found["pid"]), float(found["born"])):
            raise Failure(
                "conflict",
                f"VX11 is already up in {self.settings.home} (pid {found['pid']}); `vx11 down` stops it",
                pid=found["pid"],
            )

    def write_run_file(self) -> None:
        """What the command line needs to find us; 0600, because the Redis URL has its password in it."""
        write_secret(self.settings.run_file, json.dumps(self.document(), indent=1))

    def document(self) -> dict[str, Any]:
        """Where everything is, and which processes it is."""
        pids = {s.name: {"pid": s.pid, "born": s.born} for s in self.services}
        for name, daemon in self.daemons.items():
            pid = daemon.process.pid if daemon.process else 0
            pids[name] = {"pid": pid, "born": started_at(pid)}
        return {
            "version": VERSION,
            "supervisor": {"pid": os.getpid(), "born": started_at(os.getpid())},
            "started_at": self.started_at,
            "nats_url": self.nats_url,
            "redis_url": self.settings.get("VX11_REDIS_URL"),
            "http_url": self._door("VX11_HTTP_BIND"),
            "control_url": self._door("VX11_CONTROL_BIND"),
            "pids": pids,
        }

    def _door(self, variable: str) -> str:
        bind = self.settings.get(variable)
        return f"http://{bind}" if bind and bind != "off" else ""

    def _ours(self) -> bool:
        try:
            found: int = json.loads(self.settings.run_file.read_text())["supervisor"]["pid"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return found == os.getpid()


def _be(name: str, work: Callable[[], int], settings: Settings, parent: int) -> None:
    """In the child: become `name`, whose log file that is, and do its work. Never returns."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the supervisor's to obey, in order
        die_with_parent(parent)
        close_others(set())
        write_output_to(settings.home / "logs" / f"{name}.log")
        code = int(work())
    except Failure as failure:
        log.error("%s: %s", name, failure)
        code = 78
    except BaseException:
        log.exception("%s failed", name)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _entry(target: str) -> Callable[[Settings, str], int]:
    module, _, function = target.partition(":")
    found: Callable[[Settings, str], int] = getattr(sys.modules[module], function)
    return found


def start_logging() -> None:
    """One line per entry on stderr. Before the forks: a service has its log file there, and the rest from its parent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _reaped(pid: int) -> int | None:
    """The exit status when `pid`, a child of ours, has ended."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    return os.waitstatus_to_exitcode(status) if done else None


def _end(pid: int, patience_s: float) -> None:
    """SIGTERM, SIGCONT, and SIGKILL after `patience_s`."""
    for number in (signal.SIGTERM, signal.SIGCONT):
        os.kill(pid, number)
    end = time.monotonic() + patience_s
    while _reaped(pid) is None:
        if time.monotonic() > end:
            log.warning("process %d did not end and is killed", pid)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.01)


def read_run_file(path: Path) -> dict[str, Any] | None:
    """What a running supervisor wrote; None when there is none, or when its process is gone."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        alive = is_same(int(document["supervisor"]["pid"]), float(document["supervisor"]["born"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if alive else None
