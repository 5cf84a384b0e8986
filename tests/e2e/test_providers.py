"""Providers as their owner sees them: described at the door, kept over sleep and kill -9, forgotten when asked to."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.e2e.house import House, until
from tests.switch.scripted import Script, Server, refuses, says, scripted

ALL = "/operator/api/providers"
SECRET = "sk-canary-0123456789"
BUSY: Script = refuses(429, Retry_After="600")


async def put(home: House, name: str, server: Server, **more: Any) -> dict[str, Any]:
    lines = {"url": server.url, "model": "tiny", **more.pop("lines", {})}
    answer = await home.ask("PUT", f"{ALL}/{name}", {"lines": lines, **more})
    assert answer.status == 200, answer.text
    return dict(answer.json)


async def remove(home: House, *names: str) -> None:
    for name in names:
        answer = await home.ask("DELETE", f"{ALL}/{name}")
        assert answer.status == 200, answer.text


async def ask(home: House, session: str = "") -> dict[str, Any]:
    question = {"messages": [{"role": "user", "content": "hello"}], "session_id": session}
    answer = await home.post("/call/switch/chat", question)
    assert answer.status == 200, answer.text
    return dict(answer.json)


async def circuits(home: House) -> dict[str, str]:
    """As switch says; asking it wakes it."""
    answer = await home.post("/call/switch/list_providers", {})
    return {one["name"]: one["circuit"] for one in answer.json["providers"] if one["configured"]}


async def ranked(home: House, session: str = "") -> list[str]:
    answer = await home.post("/call/switch/route", {"text": "tell me a story", "session_id": session})
    assert answer.status == 200, answer.text
    return [one["provider"] for one in answer.json["candidates"]]


async def forget(home: House) -> None:
    answer = await home.post("/call/switch/forget_learned", {})
    assert answer.status == 200, answer.text


async def test_a_provider_is_described_at_the_door_and_answers_at_once(home: House) -> None:
    after = await home.last_event()
    file = home.home / "providers.toml"
    file.write_text("# mine\n")
    async with scripted(says("Hi")) as server:
        told = await put(home, "fresh", server, key=SECRET)
        assert (told["name"], told["configured"]) == ("fresh", True)
        assert (await ask(home))["provider"] == "fresh"
        assert server.asked[0].headers["authorization"] == f"Bearer {SECRET}"
        await home.sleep()
        shown = await home.get(ALL)
        assert (await home.states())["switch"] == "dormant"
        assert shown.json["observed_at"] is None, "what was told before the change is not so any more"
        await remove(home, "fresh")
    assert file.read_text() == "# mine\n"
    assert SECRET not in "".join(path.read_text(errors="replace") for path in (home.home / "logs").glob("*.log"))
    assert all(SECRET.encode() not in event.body for event in await home.events(after))


async def test_a_wrong_line_is_told_and_nothing_is_written(home: House) -> None:
    answer = await home.ask("PUT", f"{ALL}/fresh", {"lines": {"url": "http://169.254.169.254/v1", "model": "m"}})
    assert (answer.status, "link-local" in answer.json["message"]) == (400, True)
    answer = await home.ask("PUT", f"{ALL}/fresh", {"lines": {"url": "http://10.0.0.1/v1", "modle": "m"}})
    assert (answer.status, "did you mean model?" in answer.json["message"]) == (400, True)
    assert "fresh" not in (home.home / "providers.toml").read_text()


async def test_circuits_pins_and_figures_are_kept_over_sleep_until_they_are_forgotten(home: House) -> None:
    async with scripted(BUSY) as first, scripted(says("Hi")) as second:
        await put(home, "a", first)
        await put(home, "b", second)
        assert (await ask(home, "s1"))["provider"] == "b"
        await home.sleep("switch")
        assert await circuits(home) == {"a": "open", "b": "closed"}
        again = await ask(home, "s1")
        assert (again["provider"], again["reason"]) == ("b", "it has answered in this session before")
        assert len(first.asked) == 1
        assert (await ranked(home, "s1"), await ranked(home)) == (["b", "a"], ["a", "b"])
        await forget(home)
        await home.sleep("switch")
        assert await circuits(home) == {"a": "closed", "b": "closed"}
        assert await ranked(home, "s1") == ["a", "b"]
        await remove(home, "a", "b")


async def test_a_circuit_outlives_a_kill_of_switch(home: House) -> None:
    async with scripted(BUSY) as first, scripted(says("Hi")) as second:
        await put(home, "a", first)
        await put(home, "b", second)
        await ask(home)
        pid = (await home.status("switch"))["pid"]
        os.kill(int(pid), signal.SIGKILL)

        async def another() -> bool:
            status = await home.status("switch")
            return status.get("pid") != pid

        await until(another, "switch is not that process any more")
        assert await circuits(home) == {"a": "open", "b": "closed"}
        assert (await ask(home))["provider"] == "b"
        assert len(first.asked) == 1
        await forget(home)
        await remove(home, "a", "b")
