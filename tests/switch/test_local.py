"""The model on this machine, a real one: loaded when it is asked, shared, killed, sent away."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from actors.switch.asking.endpoint import opened
from actors.switch.asking.failure import ProviderFailed
from actors.switch.choosing.board import Board
from actors.switch.choosing.breaker import FAILURES
from actors.switch.offline import child, folder
from actors.switch.offline.local import PATIENT, Doors, Local, anticipate
from actors.switch.offline.local import opened as local_opened
from bus import models
from bus.exclusive import Lease, holder
from bus.settings import Settings
from schemas.models import ModelMemoryWanted
from schemas.switch import Chat, Turn
from tests.gguf import write
from tests.switch.staging import NOBODY

ONE = "one"
TWO = "two"
LONG = Chat(messages=[Turn(role="user", content="Tell me a very long story about a sailor.")], max_tokens=2_000)
COUNT = [Turn(role="user", content="Count from one to ten in words."), Turn(role="assistant", content="one, two, three, four,")]
SHORT = Chat(messages=COUNT, max_tokens=16, temperature=0)
"""Whatever a small model knows, this it can go on with, as `prefill` says."""
NEXT = " five, six, seven"
PATIENCE_S = 40.0


@pytest.fixture
def home(tmp_path, weights):
    """Two models that are one."""
    (tmp_path / "models").mkdir()
    for name in (ONE, TWO):
        (tmp_path / "models" / f"{name}.gguf").symlink_to(weights)
    return tmp_path


def settings(home: Path, **variables: str) -> Settings:
    return Settings(home, {"VX11_MODEL_CONTEXT": "512", **NOBODY, **variables})


class Room:
    """The client, as switch has it, and what it told."""

    def __init__(self, told: Settings, local: Local, doors: Doors) -> None:
        self.settings, self.local, self.doors = told, local, doors
        self.told: list[object] = []

    def stream(self, request: Chat, model: str = ONE, seconds: float = PATIENCE_S):
        provider = folder.provider(self.settings)
        until = asyncio.get_running_loop().time() + seconds
        return aclosing(self.doors.stream(provider, model, request, until))

    async def ask(self, model: str = ONE, seconds: float = PATIENCE_S, request: Chat = SHORT) -> str:
        async with self.stream(request, model, seconds) as pieces:
            return "".join([piece.text async for piece in pieces])


@asynccontextmanager
async def room(told: Settings):
    heard: list[object] = []
    async with local_opened(told, "switch", heard.append) as local, opened() as far, opened(PATIENT) as near:
        made = Room(told, local, Doors(far, near, local))
        made.told = heard
        yield made
    assert children() == []


def children() -> list[psutil.Process]:
    """The processes of this one that hold a model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if str(child.PROGRAM) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # gone since
    return found


async def until(what: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


async def test_it_is_loaded_by_the_first_question_and_gives_its_memory_back_when_nobody_asks(home):
    """And who lists the providers sees what is in memory now."""
    async with room(settings(home, VX11_MODEL_IDLE_S="0.6")) as here:
        board = Board(here.settings, here.doors)

        async def listed() -> str:
            (provider,) = here.local.described(await board.status()).providers
            assert (provider.name, provider.models) == ("local", [ONE, TWO])
            return provider.reason

        assert await listed() == "not in memory; a question loads it"
        assert (children(), holder(home / "models")) == ([], None)
        assert NEXT in await here.ask()
        (process,) = children()
        assert holder(home / "models") == ("switch", ONE)
        assert (await listed()).startswith("one is loaded, with ")
        here.local.let_go("switch")  # its own wish, as everybody hears it
        assert NEXT in await here.ask()
        assert children() == [process]
        await until(lambda: not children())
        await until(lambda: holder(home / "models") is None)
        assert await listed() == "not in memory; a question loads it"


async def test_what_is_expected_to_be_asked_is_loaded_before(home):
    """While it is still found out what a message is about."""
    async with room(settings(home)) as here:
        anticipate(SHORT, Board(here.settings, here.doors), here.local)
        await until(lambda: here.local.status().startswith("one is loaded"))
        (process,) = children()
        assert NEXT in await here.ask()
        assert children() == [process]


async def test_two_speak_at_once_and_a_third_waits(home):
    async with room(settings(home)) as here:
        async with here.stream(LONG) as one, here.stream(LONG) as two:
            assert (await anext(one)).text is not None
            assert (await anext(two)).text is not None
            third = asyncio.create_task(here.ask())
            await asyncio.sleep(0)
        assert NEXT in await third
        assert len(children()) == 1


async def test_another_model_waits_for_the_answer_that_is_being_given(home):
    async with room(settings(home)) as here:
        first = asyncio.create_task(here.ask(request=LONG.model_copy(update={"max_tokens": 30})))
        await until(lambda: here.local.status().startswith("one is loaded"))
        second = asyncio.create_task(here.ask(TWO))
        assert await first
        assert NEXT in await second
        assert here.local.status().startswith("two is loaded")
        assert len(children()) == 1


async def test_who_goes_away_in_mid_answer_stops_the_work(home):
    """The processor is one's own again: the next question does not wait for a story that nobody reads."""
    async with room(settings(home)) as here:
        async with here.stream(LONG) as pieces:
            await anext(pieces)
            (process,) = children()
        busy = process.cpu_times().user

        async def rests() -> bool:
            nonlocal busy
            before, busy = busy, process.cpu_times().user
            await asyncio.sleep(0.2)
            return process.cpu_times().user - before < 0.05

        end = time.monotonic() + 10
        while not await rests():
            assert time.monotonic() < end, "it goes on"


async def test_a_child_that_is_killed_in_mid_answer_is_started_anew_for_the_next(home):
    async with room(settings(home)) as here:
        async with here.stream(LONG) as pieces:
            await anext(pieces)
            (process,) = children()
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(ProviderFailed, match="its process was killed") as failed:
                async for _ in pieces:
                    continue
        assert failed.value.blame == "provider"
        assert NEXT in await here.ask()
        assert children() != [process]


async def test_a_question_whose_time_is_up_leaves_it_to_be_loaded_for_the_next(home):
    """A large model takes longer than a caller waits; it would never be there."""
    async with room(settings(home)) as here:
        with pytest.raises(ProviderFailed, match="time was up: one is being loaded") as failed:
            await here.ask(seconds=0.05)
        assert (failed.value.blame, failed.value.unspent) == ("nobody", True)
        await until(lambda: here.local.status().startswith("one is loaded"))
        assert NEXT in await here.ask()
        assert len(children()) == 1


async def test_somebody_else_who_wants_the_memory_has_it_when_the_answer_is_done(home):
    async with room(settings(home)) as here:
        async with here.stream(LONG) as pieces:
            await anext(pieces)
            other = Lease(home / "models", "the ear", lambda event: here.local.let_go(event.who))
            taking = asyncio.create_task(other.take(asyncio.get_running_loop().time() + PATIENCE_S, "its"))
            await anext(pieces)
            assert not taking.done()
        await taking
        assert children() == []
        with pytest.raises(ProviderFailed, match="held by the ear, who is working"):
            await here.ask(seconds=0.5)
        assert here.told == [ModelMemoryWanted(who="switch")]
        other.release()
        assert NEXT in await here.ask()


async def test_a_file_that_cannot_be_loaded_says_why_and_the_others_can(home, weights):
    path = home / "models" / "bad.gguf"
    async with room(settings(home)) as here:

        async def refusal() -> str:
            with pytest.raises(ProviderFailed) as failed:
                await here.ask("bad")
            assert failed.value.blame == "setup"
            return failed.value.reason

        assert "there is no model 'bad'" in await refusal()
        path.write_bytes(b"garbage")
        assert "is no GGUF file" in await refusal()
        path.write_bytes(weights.read_bytes()[:3_000_000])
        assert "within the file bounds" in await refusal()
        write(path.parent, path.stem)
        assert "bad.gguf cannot be loaded" in await refusal()
        assert NEXT in await here.ask()


async def test_a_model_that_does_not_fit_is_not_loaded(home, monkeypatch):
    monkeypatch.setattr(models, "free_memory", lambda: 50 * models.MIB)
    async with room(settings(home)) as here:
        with pytest.raises(ProviderFailed, match=r"one needs about .* MB of memory, and 50 MB are free") as failed:
            await here.ask()
        assert failed.value.blame == "setup"


@pytest.mark.parametrize(
    ("program", "told", "blame"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "this processor lacks instructions", "setup"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ran out of memory", "provider"),
        ('print(\'{"missing": "No module named xllamacpp"}\')', "No module named xllamacpp", "setup"),
        ("raise SystemExit(3)", "exit code 3", "setup"),
        ("print('garbage')", "exit code 0", "setup"),
    ],
)
async def test_a_child_that_cannot_run_says_why(home, tmp_path, monkeypatch, program, told, blame):
    """A machine without memory is left alone for a while (the circuit opens); what will not change needs no rest."""
    other = tmp_path / "program.py"
    other.write_text(program)
    monkeypatch.setattr(child, "PROGRAM", other)
    async with room(settings(home)) as here:
        with pytest.raises(ProviderFailed, match=told) as failed:
            await here.ask()
        assert failed.value.blame == blame


async def test_after_repeated_deaths_it_rests(home, tmp_path, monkeypatch):
    """The circuit of providers is that of the child, too."""
    died = tmp_path / "program.py"
    died.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(child, "PROGRAM", died)
    async with room(settings(home)) as here:
        board = Board(here.settings, here.doors)
        (choice,) = board.choices(SHORT)
        for _ in range(FAILURES):
            with board.attempt(choice, SHORT) as attempt:
                with pytest.raises(ProviderFailed, match="ran out of memory") as failed:
                    await here.ask()
                attempt.failed(failed.value, board.clock())
        with pytest.raises(ProviderFailed, match="rests"), board.attempt(choice, SHORT):
            raise AssertionError("it was asked again at once")


async def test_only_who_has_the_key_may_ask(home):
    """Other users of this machine can reach its loopback."""
    import aiohttp

    async with room(settings(home)) as here:
        provider = folder.provider(here.settings)
        end = asyncio.get_running_loop().time() + PATIENCE_S
        async with here.local.serving(provider, ONE, end) as where, aiohttp.ClientSession() as http:
            assert where.url.startswith("http://127.0.0.1:")
            assert where.key not in repr(where)
            body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            for key, status in ((where.key, 200), ("guessed", 401)):
                headers = {"Authorization": f"Bearer {key}"}
                async with http.post(f"{where.url}/chat/completions", json=body, headers=headers) as response:
                    assert response.status == status
            (process,) = children()
            assert where.key not in " ".join(process.cmdline())


async def test_it_goes_on_where_another_was_cut_off(home):
    """What was said before is not said again: `prefill` is true."""
    async with room(settings(home)) as here:
        assert (await here.ask()).startswith(NEXT)


def test_without_the_engine_models_are_a_fault_that_says_what_to_install(home, monkeypatch):
    from actors.switch.configured.lines import Misconfigured

    monkeypatch.setattr(folder, "ENGINE", "no_such_engine")
    with pytest.raises(Misconfigured, match=r"is not installed: .* -m pip install --only-binary"):
        folder.provider(settings(home))


@pytest.mark.parametrize("variable", ["VX11_MODEL_IDLE_S", "VX11_MODEL_THREADS", "VX11_MODEL_CONTEXT"])
def test_a_setting_that_is_no_number_is_a_fault_before_anybody_asks(home, variable):
    """An answer that had been given whole was lost over it."""
    from actors.switch.configured.lines import Misconfigured

    with pytest.raises(Misconfigured, match=f"{variable}='soon' is no number"):
        folder.provider(settings(home, **{variable: "soon"}))


async def test_where_no_lease_and_no_process_can_be_had_the_next_provider_is_asked(home, monkeypatch):
    """A full disk, a folder of somebody else's, a machine out of processes: none of it is a mistake of VX11."""

    async def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async with room(settings(home)) as here:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "create_subprocess_exec", refused)
            with pytest.raises(ProviderFailed, match="no process can be started for one"):
                await here.ask()
        (home / "models" / "lease").unlink()
        (home / "models" / "lease").mkdir()
        with pytest.raises(ProviderFailed, match="leave to use the models' memory cannot be had") as failed:
            await here.ask()
        assert failed.value.blame == "setup"


async def test_who_leaves_while_a_model_gives_way_leaves_no_lease_behind(home, tmp_path, monkeypatch):
    """The one that is still loading takes its time to end; the lease would stay with nobody behind it."""
    slow = tmp_path / "program.py"
    slow.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(child, "PROGRAM", slow)
    async with room(settings(home)) as here:
        with pytest.raises(ProviderFailed, match="time was up"):
            await here.ask(ONE, seconds=0.2)
        await until(children)
        with pytest.raises(ProviderFailed, match="time was up"):
            await here.ask(TWO, seconds=0.2)
        await until(lambda: holder(home / "models") is None, seconds=10.0)
        assert children() == []


def test_the_folder_is_one_provider_whose_models_say_what_they_are(home):
    found = folder.provider(settings(home))
    assert (found.name, found.all_models) == ("local", (ONE, TWO))
    traits = found.traits(TWO)
    assert (traits.note, traits.languages, traits.context) == ("offline model, 135M, English", ("en",), 512)
    assert (traits.offline, traits.prefill) == (True, True)
    assert (traits.json, traits.tools) == (True, False), "its chat template would not even tell it of a tool"


def test_a_model_leaves_a_processor_to_the_others(tmp_path):
    """Threads that wait for each other on a busy machine wait long."""
    assert child.threads(Settings(tmp_path)) == max(1, (os.cpu_count() or 1) - 1)
    assert child.threads(Settings(tmp_path, {"VX11_MODEL_THREADS": "3"})) == 3
    assert child.threads(Settings(tmp_path, {"VX11_MODEL_THREADS": "0"})) == 1
