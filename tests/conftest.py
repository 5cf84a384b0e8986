"""What all tests share: real servers, and guards that fail a run which leaves something behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from bus import nats_server as nats
from bus import redis_server as redis

RUN = f"vx11-{uuid.uuid4().hex}"
os.environ["VX11_TEST_RUN"] = RUN
"""Marks every process that this run starts, also those whose parent has gone."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs in the background; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("vx11", deadline=None, print_blob=True)  # a busy machine is no counterexample
hypothesis.settings.load_profile("vx11")

SLOW_FOLDERS = ("canary", "golden", "guest", "log", "e2e", "tour", "torture", "faults", "fuzz", "bench", "trace")
"""Their tests come last: what fails should fail soon."""
RULE_BROKEN = 9
"""Exit code: the tests may be good, the run is not. No second look mends it, see `tests/again.py`."""
LEAVE_S = 2.0
"""For what was told to stop at the end of the last test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skips", type=Path, help="fail when other tests were skipped than this file names")
    parser.addoption("--budget", type=float, help="fail when the run took more seconds than this")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(House(config), "vx11-house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_speed)
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_left")


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """First in, last out: what still runs when all other fixtures are closed was forgotten."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left behind: {[task.get_coro() for task in left]}"


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nats.NatsServer]:
    """A nats-server with JetStream and the users of VX11, for all tests of one file."""
    with nats.embedded(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.RedisServer]:
    """A Valkey, for all tests of one file."""
    with redis.embedded(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def weights() -> Path:
    """A real language model, as a GGUF file."""
    from tests.weights import smollm2

    return smollm2()


class House:
    """Judges the whole run at its end: skips, time, processes."""

    def __init__(self, config: pytest.Config) -> None:
        self.skips: Path | None = config.getoption("--skips")
        self.budget: float | None = config.getoption("--budget")
        self.skipped: set[str] = set()
        self.faults: list[str] = []
        self.begun = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            return
        took = time.monotonic() - self.begun
        if self.budget and took > self.budget:
            self.faults.append(f"the tests took {took:.0f} s; the budget is {self.budget:.0f} s")
        if self.skips and not session.shouldstop:
            self.faults += skip_faults(self.skipped, self.skips.read_text(), set(os.environ))
        self.faults += [f"left running: {line}" for line in end_processes()]
        if self.faults:
            session.exitstatus = RULE_BROKEN

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for fault in self.faults:
            terminalreporter.write_line(f"HOUSE RULE BROKEN: {fault}", red=True)


def skip_faults(skipped: set[str], text: str, variables: set[str]) -> list[str]:
    """Differences between what was skipped and the lines `<test id> [unless VARIABLE]` of a file."""
    expected = set()
    for line in text.splitlines():
        name, _, unless = line.partition("#")[0].strip().partition(" unless ")
        if name and unless.strip() not in variables:
            expected.add(name.strip())
    return [f"skipped, but not named: {name}" for name in sorted(skipped - expected)] + [
        f"named as skipped, but it ran or is gone: {name}" for name in sorted(expected - skipped)
    ]


def end_processes() -> list[str]:
    """Command lines of the processes of this run that outlived it; they are killed."""
    deadline = time.monotonic() + LEAVE_S
    while (left := _processes()) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
    lines = []
    for process in left:
        try:
            lines.append(f"{process.pid} {' '.join(process.cmdline())}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return lines


def _processes() -> list[psutil.Process]:
    """Children, and whoever carries the mark of this run: an orphan is no child any more."""
    found = {child.pid: child for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("VX11_TEST_RUN") == RUN:
                found[process.pid] = process
        except psutil.Error:
            continue  # another user's, or gone since
    return [process for process in found.values() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _speed(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return SLOW_FOLDERS.index(folder) + 1 if folder in SLOW_FOLDERS else 0
