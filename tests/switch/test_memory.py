"""What is learned of providers outlives sleep, a crash and a broken file, and can be forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from actors.switch.asking.dialect import Piece
from actors.switch.asking.failure import ProviderFailed
from actors.switch.choosing import memory
from actors.switch.choosing.board import Board
from actors.switch.choosing.breaker import Circuit, restored
from actors.switch.choosing.choice import Choice
from actors.switch.choosing.learned import FACTOR_START
from actors.switch.choosing.memory import Memory
from actors.switch.configured.providers import Provider
from actors.switch.store import Store
from bus.settings import Settings
from schemas.errors import Failure
from schemas.switch import Chat, Turn
from tests.switch.staging import NOBODY

HELLO = Chat(messages=[Turn(role="user", content="hello")])
IN_SESSION = HELLO.model_copy(update={"session_id": "s1"})
DOWN = ProviderFailed("HTTP 500")
BUSY = ProviderFailed("HTTP 429", retry_after=600.0)
TWO = '[a]\nurl = "http://127.0.0.1:1/v1"\nmodel = "m"\n[b]\nurl = "http://127.0.0.1:2/v1"\nmodel = "m"\n'
DAY = 86_400.0


class Nobody:
    """A client whose providers list no models."""

    def __init__(self, why: ProviderFailed = DOWN) -> None:
        self.why = why

    def stream(self, provider: Provider, model: str, request: Chat, until: float) -> AsyncGenerator[Piece, None]:
        raise AssertionError("nobody is asked here")

    async def models(self, provider: Provider, until: float) -> list[str]:
        raise self.why


@dataclass
class Days:
    """The life of switch: it may be `awake` many times. `wall` goes on while it sleeps, its own clock begins anew."""

    home: Path
    wall: float = 1_795_435_200.0
    started: float = field(default=0.0, init=False)

    @contextmanager
    def awake(self, client: Nobody | None = None) -> Iterator[Board]:
        self.started = self.wall
        settings = Settings(self.home, NOBODY)
        store = Store(settings, lambda: self.wall)
        clock = lambda: 5_000.0 + self.wall - self.started
        try:
            yield Board(settings, client or Nobody(), clock, Memory(store, lambda: self.wall))
        finally:
            store.shut()

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds


@pytest.fixture
def days(tmp_path: Path) -> Days:
    (tmp_path / "providers.toml").write_text(TWO)
    return Days(tmp_path)


def order(board: Board, request: Chat = HELLO) -> list[str]:
    return [choice.provider.name for choice in board.choices(request)]


def choice(board: Board, name: str) -> Choice:
    return next(one for one in board.choices(HELLO) if one.provider.name == name)


def fail(board: Board, name: str, why: ProviderFailed = DOWN, times: int = 1) -> None:
    for _ in range(times):
        with board.attempt(choice(board, name), HELLO) as attempt:
            attempt.failed(why, board.clock())


def answer(board: Board, name: str, request: Chat = HELLO, usage: dict[str, int] | None = None) -> None:
    with board.attempt(choice(board, name), request) as attempt:
        attempt.heard()
        attempt.answered(usage)


def circuits(board: Board) -> list[str]:
    return [entry.circuit.state(board.clock()) for entry in board.entries()]


def test_an_open_circuit_is_open_after_sleep_for_as_long_as_it_would_have_been(days: Days) -> None:
    """A provider that asked for ten minutes of rest is not asked by whoever wakes switch after one."""
    with days.awake() as board:
        fail(board, "a", BUSY)
        assert circuits(board) == ["open", "closed"]
    days.pass_by(60)
    with days.awake() as board:
        assert circuits(board) == ["open", "closed"]
        assert board.configured("a").reason == "rests after failures, and may be asked in 540 s"
        days.pass_by(541)
        assert circuits(board) == ["half_open", "closed"]
    with days.awake() as board:
        answer(board, "a")
    with days.awake() as board:
        assert circuits(board) == ["closed", "closed"]


def test_failures_in_a_row_are_counted_across_sleep(days: Days) -> None:
    for expected in ("closed", "closed", "open"):
        with days.awake() as board:
            fail(board, "a")
            assert circuits(board)[0] == expected


def test_a_circuit_is_kept_also_when_the_process_is_killed(days: Days) -> None:
    """Nothing is written at the end only: a second process finds it while the first has said no goodbye."""
    with days.awake() as board:
        fail(board, "a", BUSY)
        written = (days.home / "switch" / "switch.db-wal").read_bytes()
    assert written
    with days.awake() as board:
        assert circuits(board)[0] == "open"


def test_a_provider_that_was_configured_anew_begins_with_a_closed_circuit(days: Days) -> None:
    """Whoever has just mended it wants to see it work."""
    with days.awake() as board:
        fail(board, "a", BUSY)
    (days.home / "providers.toml").write_text(TWO.replace(":1/", ":3/"))
    with days.awake() as board:
        assert circuits(board)[0] == "closed"


def test_what_a_model_has_shown_is_known_after_sleep_and_forgotten_after_weeks(days: Days) -> None:
    for _ in range(30):
        with days.awake() as board:
            days.pass_by(31)
            fail(board, "a")
        days.pass_by(31)
    with days.awake() as board:
        assert order(board) == ["b", "a"]
    days.pass_by(21 * DAY)
    with days.awake() as board:
        assert order(board) == ["a", "b"]


def test_a_session_keeps_its_model_across_sleep(days: Days) -> None:
    with days.awake() as board:
        answer(board, "b", IN_SESSION)
    with days.awake() as board:
        assert order(board) == ["a", "b"]
        assert order(board, IN_SESSION) == ["b", "a"]
        assert board.choices(IN_SESSION)[0].reason == "it has answered in this session before"


def test_a_model_that_was_asked_for_by_its_name_is_not_pinned(days: Days) -> None:
    with days.awake() as board:
        answer(board, "b", IN_SESSION.model_copy(update={"model": "b"}))
        assert order(board, IN_SESSION) == ["a", "b"]


def test_the_small_model_on_this_machine_is_never_pinned(days: Days) -> None:
    """It answered because nothing better could; that is no reason to stay with it."""
    with days.awake() as board:
        found = choice(board, "b")
        offline = replace(found, traits=replace(found.traits, offline=True))
        with board.attempt(offline, IN_SESSION) as attempt:
            attempt.answered()
        assert board.memory.pinned("s1") == ""


def test_the_tokens_of_a_text_are_learned(days: Days) -> None:
    long = Chat(messages=[Turn(role="user", content="x" * 2_000)])
    with days.awake() as board:
        answer(board, "a", long, {"prompt_tokens": 1_500})
    with days.awake() as board:
        assert board.memory.observed(choice(board, "a").provider, "m").factor == pytest.approx(0.825)
        assert board.memory.observed(choice(board, "b").provider, "m").factor == FACTOR_START


def test_forgetting_resets_everything_and_for_good(days: Days) -> None:
    with days.awake() as board:
        fail(board, "a", BUSY, 1)
        answer(board, "b", IN_SESSION)
        board.forget()
        assert (circuits(board), order(board, IN_SESSION)) == (["closed", "closed"], ["a", "b"])
    with days.awake() as board:
        assert (circuits(board), order(board, IN_SESSION)) == (["closed", "closed"], ["a", "b"])
        assert not board.memory.observed(choice(board, "a").provider, "m").known


def test_an_attempt_that_began_before_forgetting_does_not_bring_it_back(days: Days) -> None:
    with days.awake() as board:
        with board.attempt(choice(board, "a"), HELLO) as attempt:
            board.forget()
            attempt.failed(BUSY, board.clock())
        assert circuits(board)[0] == "closed"
    with days.awake() as board:
        assert circuits(board)[0] == "closed"


async def test_a_provider_that_fails_to_list_its_models_rests_for_chats_too(days: Days) -> None:
    with days.awake(Nobody(BUSY)) as board:
        await board.models()
        with pytest.raises(ProviderFailed, match="not asked"):
            fail(board, "a")
    with days.awake() as board:
        assert circuits(board) == ["open", "open"]


async def test_a_refusal_to_list_models_says_nothing_of_chats(days: Days) -> None:
    """Many servers have no such list."""
    with days.awake(Nobody(ProviderFailed("HTTP 404", blame="setup"))) as board:
        for _ in range(5):
            await board.models()
        assert circuits(board) == ["closed", "closed"]


def test_a_file_that_cannot_be_read_only_means_learning_anew(days: Days, caplog: pytest.LogCaptureFixture) -> None:
    """Its owner says what is wrong with it; the choice of a model does not fail by it."""
    with days.awake() as board:
        fail(board, "a", BUSY)
    (days.home / "switch" / "switch.db").write_bytes(b"garbage" * 1_000)
    with days.awake() as board:
        assert circuits(board) == ["closed", "closed"]
        fail(board, "a", times=3)
        assert circuits(board)[0] == "open"
        with pytest.raises(Failure):
            board.forget()
        assert circuits(board)[0] == "open"
    assert "it is learned anew" in caplog.text


def test_documents_that_are_garbage_are_not_believed(days: Days) -> None:
    with days.awake() as board:
        fail(board, "a", BUSY)
        store = board.memory._shelf
        assert isinstance(store, Store)
        store.keep("circuit", {"a": ["open"], "b": {"failures": "many"}})
        store.keep("model", {"a/m": {"place": "http://127.0.0.1:1/v1", "weight": "heavy"}, "b/m": 7})
        store.keep("pin", {"s1": {"x": 1}})
    with days.awake() as board:
        assert (circuits(board), order(board, IN_SESSION)) == (["closed", "closed"], ["a", "b"])


def test_a_million_sessions_take_no_more_room_than_ten_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(memory.MOST, "pin", 10)
    kept = Memory()
    for n in range(100):
        kept.pin(f"s{n}", "a/m")
    assert [session for n in range(100) if kept.pinned(session := f"s{n}")] == [f"s{n}" for n in range(90, 100)]


@pytest.mark.parametrize(
    "document",
    [
        None,
        1,
        {},
        {"failures": -1, "open_until": None},
        {"failures": 1, "open_until": float("nan")},
        {"failures": 1, "open_until": "x"},
    ],
)
def test_a_circuit_that_cannot_be_read_is_closed(document: object) -> None:
    assert restored(document, 0.0, 0.0) == Circuit()


def test_a_wall_clock_that_jumps_opens_no_circuit_for_years() -> None:
    opened = Circuit().failed(100.0, probe=False, retry_after=60.0).document(100.0, 2_000_000_000.0)
    assert restored(opened, 50.0, 1_000_000_000.0).wait(50.0) == 3_600.0
    assert restored(opened, 50.0, 3_000_000_000.0).wait(50.0) == 0.0


def test_the_place_of_a_circuit_does_not_tell_the_key(days: Days) -> None:
    (days.home / "a.key").touch(mode=0o600)
    (days.home / "a.key").write_text("sk-canary")
    (days.home / "providers.toml").write_text(TWO.replace("[b]", 'key_file = "a.key"\n[b]'))
    with days.awake() as board:
        fail(board, "a", BUSY)
        store = board.memory._shelf
        assert isinstance(store, Store)
        assert "sk-canary" not in str(store.kept("circuit"))


def test_what_is_learned_is_encrypted(days: Days) -> None:
    with days.awake() as board:
        answer(board, "b", IN_SESSION)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(days.home / "switch" / "switch.db").execute("SELECT * FROM kept")
