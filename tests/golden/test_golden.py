"""Golden replay: the calls of yesterday against the code of today, in a process that nobody else notices."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from bus.client import Bus
from bus.eventlog import EventLog
from bus.loading import TREE
from gateway.torture.system import scratch
from tests.e2e.command import Ran, Vx11
from tests.golden.office import Office, wait_until, write_office


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    home = tmp_path_factory.mktemp("office")
    write_office(home)
    variables = {"VX11_ACTORS_PATH": str(home / "actors")}
    with scratch(home, variables=variables) as system:
        yield Office(system)


CALLS_OF_A_MORNING = (
    ("tell", {"name": "Ana"}),
    ("tell", {}),
    ("tell", {"name": "nobody"}),
    ("tell", {"name": "home"}),
    ("count", {"n": 2}),
)


@pytest.fixture(scope="module")
def morning(office: Office) -> str:
    """A conversation that was recorded."""
    asyncio.run(office.ask(*CALLS_OF_A_MORNING, conversation="morning-1"))
    return "morning-1"


def processes() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_the_same_code_gives_the_same_answers_and_leaves_nothing_behind(office, morning, tmp_path):
    """What clerk said is played from the recording: it counts, and would say something else now. `took_ms` is volatile."""
    before = processes()
    ran = Vx11(office.system.home, TMPDIR=str(tmp_path)).run("golden", "teller", "--correlation", morning, "--json")
    assert (ran.code, ran.err) == (0, ""), ran
    assert (ran.json["same"], ran.json["changed"], ran.json["left_out"]) == (len(CALLS_OF_A_MORNING), 0, {})
    assert [one["code"] for one in ran.json["calls"]] == ["ok", "ok", "not_found", "ok", "ok"]
    assert [one["asked"] for one in ran.json["calls"]][:2] == [[{"subject": "vx11.clerk.ask", "recorded": True}]] * 2
    assert processes() <= before, "nothing is left running"
    assert list(tmp_path.iterdir()) == []


def test_a_changed_answer_is_found_and_shown(office, morning):
    with office.edited("Hello, ", "Hi, "):
        ran = office.run("teller", "--correlation", morning)
    assert ran.code == 1, ran.err
    assert '    - "Hello, Dr. Ana!"\n    + "Hi, Dr. Ana!"' in ran
    assert "teller: 5 calls asked again, 2 answered differently" in ran
    assert "took_ms" not in ran


def test_other_changes_are_found_too(office, morning):
    """Another code, another message of an error, another whole of a stream."""
    with (
        office.edited('Failure("not_found"', 'Failure("conflict"'),
        office.edited("nobody is not here", "who is that"),
        office.edited("total=request.n", "total=request.n + 1"),
    ):
        ran = office.run("teller", "--correlation", morning, "--json")
    assert ran.code == 1, ran.err
    assert [one["changes"] for one in ran.json["calls"] if one["changes"]] == [
        [
            {"field": "code", "was": "not_found", "is": "conflict"},
            {"field": "message", "was": "nobody is not here", "is": "who is that"},
        ],
        [{"field": "total", "was": 2, "is": 3}],
    ]


def test_who_asks_others_for_something_else_now_is_told_apart(office, morning):
    """There is no honest answer to what was never asked: it fails, and the reason is beside it."""
    with office.edited("Ask(name=request.name", 'Ask(name=request.name + "!"'):
        ran = office.run("teller", "--correlation", morning)
    assert ran.code == 1
    assert "it asked vx11.clerk.ask for what is not in the recording, and got `unavailable`" in ran


def test_what_it_publishes_goes_to_the_sandbox_and_not_into_the_log(office, morning):
    async def watched() -> tuple[list, int, int, Ran]:
        heard: list[tuple[str, bytes]] = []
        async with Bus.connect(office.system.url, user="client", seed=office.system.seed("client"), name="watch") as bus:
            await bus.listen("vx11.sandbox.>", lambda msg: heard.append((msg.subject, msg.data)))
            await bus.wire.barrier()
            _, before = await EventLog(bus).bounds()
            ran = await asyncio.to_thread(office.run, "teller", "--correlation", morning, "--json")
            await bus.wire.barrier()
            told = [one for one in await EventLog(bus).read(before, 1_000) if one.subject.startswith("vx11.events.teller")]
            return heard, len(told), before, ran

    heard, told, _, ran = asyncio.run(watched())
    assert told == 0
    assert sorted(heard) == sorted(
        (f"{ran.json['sandbox']}.vx11.events.teller.wished", f'{{"name":"{name}"}}'.encode()) for name in ("Ana", "Ana")
    )


def test_other_hosts_files_and_processes_are_out_of_reach(office, tmp_path):
    """The reach of then worked; today's is refused, and the result says what was tried."""
    victim = tmp_path / "victim"
    port = int(office.system.url.rsplit(":", 1)[1])
    asyncio.run(office.ask(("reach", {"port": port, "file": str(victim)}), conversation="reaching-1"))
    ran = office.run("teller", "--correlation", "reaching-1", "--json")
    assert ran.code == 1
    [one] = ran.json["calls"]
    assert one["was"]["reply"] == {"tried": ["done"] * 5}
    assert [change["is"] for change in one["changes"]] == ["refused"] * 5
    assert one["refused"] == [
        f"connect to 127.0.0.1:{port}",
        f"write {victim}",
        f"os.remove {victim}",
        "start a process (os.system)",
        "look up example.invalid",
    ]
    assert not victim.exists()


def test_a_call_with_a_secret_in_it_is_not_asked_again(office):
    asyncio.run(office.ask(("tell", {"pin": "hunter2"}), ("tell", {}), conversation="secret-call-1"))
    ran = office.run("teller", "--correlation", "secret-call-1", "--json")
    assert (ran.code, ran.json["same"]) == (0, 1)
    assert ran.json["left_out"] == {"has a secret in it, which is not recorded": 1}


def test_only_the_newest_are_asked_again_when_there_is_a_limit(office, morning):
    ran = office.run("teller", "--since", "1d", "--correlation", morning, "--limit", "1", "--json")
    assert [one["verb"] for one in ran.json["calls"]] == ["count"]
    assert office.run("teller", "--since", "2100-01-01T00:00:00Z", "--correlation", morning).code == 2


def test_without_a_recording_it_says_how_to_make_one(office):
    ran = office.run("teller", "--correlation", "no-such-conversation")
    assert ran.code == 2
    assert "VX11_RECORD_TELLER=full vx11 up" in ran.err


def test_code_that_cannot_be_loaded_is_told_with_its_line(office, morning):
    with office.edited("@actor.handles\nasync def count", "@actor.handle\nasync def count"):
        ran = office.run("teller", "--correlation", morning)
    assert ran.code == 2
    assert "teller cannot be tried in a sandbox: AttributeError" in ran.err
    assert "actor.py, line" in ran.err


def test_code_that_ends_its_process_is_no_mystery(office, morning):
    with office.edited("    for i in range(request.n):", "    os._exit(9)\n    for i in range(request.n):"):
        ran = office.run("teller", "--correlation", morning)
    assert ran.code == 2
    assert "its process ended with 9" in ran.err


def test_who_is_killed_in_the_middle_leaves_no_process_behind(office, morning, tmp_path):
    """The sandbox has two servers of its own."""
    slow = "    await asyncio.sleep(60)\n    for i in range(request.n):"
    with office.edited("    for i in range(request.n):", slow), office.edited("import os\n", "import asyncio\nimport os\n"):
        words = [sys.executable, "-m", "gateway.cli", "golden", "teller", "--correlation", morning]
        with subprocess.Popen(words, env={**office.vx11.environ, "TMPDIR": str(tmp_path)}, cwd=TREE) as running:
            command = psutil.Process(running.pid)
            wait_until(lambda: len(command.children(recursive=True)) >= 3)
            begun = command.children(recursive=True)
            running.kill()
    wait_until(lambda: not any(process.is_running() for process in begun))


async def test_records_that_are_none_are_left_out(office):
    """Actors may write there, and so may their bugs."""
    system = office.system
    async with Bus.connect(system.url, user="actor", seed=system.seed("actor"), name="office", actor="teller") as bus:
        for body in (b"", b"no json", b"[]", b"{}", b'{"code": 3}', b'{"correlation_id": "garbage-1", "code": "ok"}'):
            bus.wire.send("vx11.calls.teller.tell", body)
        await bus.wire.barrier()
    ran = await asyncio.to_thread(office.run, "teller", "--limit", "1", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["left_out"]["is none of ours"] >= 5
