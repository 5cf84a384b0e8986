"""What is configured, what is found, what is listed."""

from __future__ import annotations

from pathlib import Path

from actors.switch import actor as switch
from actors.switch.asking.endpoint import Endpoint, opened
from actors.switch.choosing.board import Board
from bus import Settings
from schemas.switch import (
    ListModels,
)
from tests import gguf
from tests.switch.accounting import Accounts
from tests.switch.scripted import (
    Exchange,
    Server,
    lists,
    refuses,
    says,
    scripted,
)
from tests.switch.staging import HELLO, NOBODY, Stage, Told, stage


def alone(home: Path, endpoint: Endpoint, servers: list[Server], variables: dict[str, str]) -> Stage:
    """switch without a configured provider. No bill is ever written."""
    return Stage(Board(Settings(home, variables), endpoint), servers, Told(), [], Accounts(home))


# --- configuration ---


async def test_without_a_model_the_answer_says_what_to_do(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        failure = await on.failure()
    assert failure.code == "unavailable"
    assert failure.message.startswith("no language model is configured: set VX11_LLM_URL and VX11_LLM_MODEL")
    assert str(tmp_path / "providers.toml") in failure.message


async def test_a_wrong_configuration_is_told_to_whoever_asks(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        (tmp_path / "providers.toml").write_text('[home]\nurl = "http://127.0.0.1:1/v1"\n')
        failure = await on.failure()
        assert (await on.status())["home"].reason == failure.message.removeprefix("no language model can be used: ")
    assert "[home]: model is missing" in failure.message


async def test_a_wrong_table_is_told_beside_the_answer_of_the_model_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(gguf.header(gguf.small()))
    async with opened() as endpoint:
        board = Board(Settings(tmp_path), endpoint)
        assert [one.reason for one in board.choices(HELLO)] == ["nothing better is configured"]
        (tmp_path / "providers.toml").write_text('[home]\nurl = "http://127.0.0.1:1/v1"\n')
        (choice,) = board.choices(HELLO)
    assert choice.provider.name == "local"
    assert "[home]: model is missing" in choice.reason


async def test_a_new_line_in_the_file_works_at_once(tmp_path: Path) -> None:
    """Whoever was told what to write should not have to restart anything."""
    async with stage(tmp_path, says("Hi")) as on:
        written = (tmp_path / "providers.toml").read_text()
        (tmp_path / "providers.toml").unlink()
        await on.failure()
        (tmp_path / "providers.toml").write_text(written)
        assert (await on.reply()).text == "Hi"


async def test_a_change_elsewhere_in_the_file_keeps_the_circuits(tmp_path: Path) -> None:
    async with stage(tmp_path, refuses(500), says("Hi")) as on:
        for _ in range(3):
            await on.reply()
        path = tmp_path / "providers.toml"
        path.write_text(path.read_text() + "# a note\n")
        assert (await on.status())["p0"].circuit == "open"
        path.write_text(path.read_text().replace('"m0"', '"m0-new"'))
        assert (await on.status())["p0"].circuit == "closed"


async def test_a_changed_key_file_is_used_at_once(tmp_path: Path) -> None:
    key = tmp_path / "p0.key"
    key.touch(mode=0o600)
    key.write_text("sk-old")
    async with stage(tmp_path, says("Hi")) as on:
        with (tmp_path / "providers.toml").open("a") as file:
            file.write('key_file = "p0.key"\n')
        await on.reply()
        key.write_text("sk-newer")
        await on.reply()
        sent = [asked.headers["authorization"] for asked in on.servers[0].asked]
    assert sent == ["Bearer sk-old", "Bearer sk-newer"]


# --- what is found, and what is listed ---


async def test_an_ollama_is_offered_and_not_taken(tmp_path: Path) -> None:
    async with scripted(lists("qwen3:8b")) as ollama, opened() as endpoint:
        host = ollama.url.removeprefix("http://").removesuffix("/v1")
        on = alone(tmp_path, endpoint, [ollama], {"OLLAMA_HOST": host})
        offered = (await on.status())["ollama"]
        failure = await on.failure()
        assert {asked.path for asked in ollama.asked} == {"/v1/models"}
    assert (offered.offered, offered.configured, offered.health, offered.models) == (True, False, "up", ["qwen3:8b"])
    assert offered.observed_at is not None
    assert "[ollama]\nurl = " in offered.reason
    assert failure.code == "unavailable"
    assert "found but not taken: ollama" in failure.message


async def test_an_offer_that_is_taken_as_it_says_answers(tmp_path: Path) -> None:
    async def either(exchange: Exchange) -> None:
        await (lists("qwen3:8b") if exchange.asked.method == "GET" else says("Hi"))(exchange)

    async with scripted(either) as ollama, opened() as endpoint:
        host = ollama.url.removeprefix("http://").removesuffix("/v1")
        on = alone(tmp_path, endpoint, [ollama], {"OLLAMA_HOST": host})
        _, _, lines = (await on.status())["ollama"].reason.partition("providers.toml:\n")
        (tmp_path / "providers.toml").write_text(lines)
        reply = await on.reply()
        listed = (await on.status())["ollama"]
    assert (reply.text, reply.provider, reply.model) == ("Hi", "ollama", "qwen3:8b")
    assert (listed.configured, listed.offered) == (True, False)


async def test_a_key_in_the_environment_is_offered_and_asks_nobody(tmp_path: Path) -> None:
    """Its service is paid, and on another machine: nothing is sent there before a yes."""
    async with opened() as endpoint:
        on = alone(tmp_path, endpoint, [], {**NOBODY, "OPENAI_API_KEY": "sk-canary"})
        status = await on.status()
        failure = await on.failure()
    assert (status["openai"].offered, status["openai"].health, status["openai"].observed_at) == (True, "unknown", None)
    assert 'key_env = "OPENAI_API_KEY"' in status["openai"].reason
    assert "found but not taken: openai" in failure.message
    assert "sk-canary" not in f"{status} {failure.document()}"


async def test_something_else_on_that_port_is_not_offered(tmp_path: Path) -> None:
    async with scripted(refuses(404)) as other, opened() as endpoint:
        host = other.url.removeprefix("http://").removesuffix("/v1")
        on = alone(tmp_path, endpoint, [other], {"OLLAMA_HOST": host})
        assert await on.status() == {}


async def test_health_is_what_was_observed(tmp_path: Path) -> None:
    async with stage(tmp_path, refuses(500), says("Hi"), says("never asked")) as on:
        assert {provider.health for provider in (await on.status()).values()} == {"unknown"}
        await on.reply()
        status = await on.status()
    assert [status[name].health for name in ("p0", "p1", "p2")] == ["down", "up", "unknown"]
    assert (status["p0"].reason, status["p2"].observed_at) == ("HTTP 500", None)
    assert status["p0"].observed_at is not None


async def test_models_are_those_configured_and_those_listed(tmp_path: Path) -> None:
    async with stage(tmp_path, lists("m0", "extra"), refuses(404)) as on:
        listed = await switch.list_models(ListModels(), on.board)
        again = await switch.list_models(ListModels(), on.board)
        assert on.asked[0] == 1
    assert [(model.provider, model.id) for model in listed.models] == [("p0", "m0"), ("p0", "extra"), ("p1", "m1")]
    assert again == listed


async def test_a_listed_model_can_be_asked_for(tmp_path: Path) -> None:
    async with stage(tmp_path, [lists("extra"), says("Hi")]) as on:
        await switch.list_models(ListModels(), on.board)
        assert (await on.reply(HELLO.model_copy(update={"model": "extra"}))).text == "Hi"
        assert on.servers[0].asked[1].document["model"] == "extra"
