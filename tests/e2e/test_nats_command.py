"""The stock `nats` command line, as an operator types it, with the context file that `vx11 nats-context` writes.

`VX11_NATS_CLI` names the program; without it this file is skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import Vx11
from tests.e2e.house import KNOWN, House, until
from tests.e2e.services import answers
from tests.switch.scripted import says

NATS = os.environ.get("VX11_NATS_CLI", "")
if not NATS:
    pytest.skip("VX11_NATS_CLI names no nats command line", allow_module_level=True)

RUN_S = 20
JOTTED = "vx11.events.notebook.jotted"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Nats:
    """The program with the context of one house, and nothing else of this user."""

    def __init__(self, home: House) -> None:
        self.config = home.home / "config"
        Vx11(home)("nats-context")

    @property
    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("NATS_")}
        return kept | {"XDG_CONFIG_HOME": str(self.config), "HOME": str(self.config), "NO_COLOR": "1"}

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NATS, "--context", "vx11", *words],
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )

    def __call__(self, *words: str) -> str:
        ran = self.run(*words)
        assert ran.returncode == 0, f"nats {' '.join(words)}: {ran.stdout}{ran.stderr}"
        return COLOURS.sub("", ran.stdout)

    def on_a_terminal(self, *words: str, until: str) -> str:
        """What it has written to a terminal once `until` is there; then it is ended."""
        ours, its = pty.openpty()
        argv = [NATS, "--context", "vx11", *words]
        child = subprocess.Popen(argv, env=self.environ, stdin=its, stdout=its, stderr=its, start_new_session=True)
        os.close(its)
        shown = ""
        try:
            while until not in shown and select.select([ours], [], [], RUN_S)[0]:
                shown += COLOURS.sub("", os.read(ours, 65_536).decode(errors="replace"))
        finally:
            child.kill()
            child.wait()
            os.close(ours)
        return shown

    def begun(self, *words: str, to: Path) -> subprocess.Popen[bytes]:
        with to.open("wb") as out:
            return subprocess.Popen(
                [NATS, "--context", "vx11", *words], env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )


@pytest.fixture(scope="module")
def nats_command(home: House) -> Nats:
    return Nats(home)


async def heard(nats_command: Nats, home: House, *words: str, stirred: str) -> None:
    """Until the program, that listens, has printed `stirred`, of what an awakening does."""
    out = home.home / "heard.txt"
    listening = nats_command.begun(*words, to=out)
    try:

        async def printed() -> bool:
            await home.sleep("notebook")
            await home.order("wake", name="notebook")
            return stirred in COLOURS.sub("", out.read_text())

        await until(printed, f"nats {' '.join(words)} prints {stirred!r}")
    finally:
        listening.terminate()
        listening.wait(RUN_S)


def test_micro_ls_lists_sleepers(nats_command: Nats) -> None:
    table = nats_command("micro", "ls")
    assert all(name in table for name in KNOWN | {"madre"}), table


def test_micro_info_tells_the_endpoints_of_a_sleeper(nats_command: Nats) -> None:
    told = nats_command("micro", "info", "switch")
    assert "vx11.switch.chat" in told
    assert "routes prompts to language models" in told


def test_micro_stats_counts(nats_command: Nats) -> None:
    """It fails as a whole when a single service answers what is no statistics."""
    nats_command("req", "vx11.notebook.list_lines", "{}")
    table = nats_command("micro", "stats", "notebook")
    assert "list_lines" in table


async def test_kv_get_shows_what_a_day_has_cost(nats_command: Nats, home: House) -> None:
    async with home.model(says("hi", usage={"prompt_tokens": 7, "completion_tokens": 3})):
        question = {"messages": [{"role": "user", "content": "hello"}]}
        assert (await home.post("/call/switch/chat", question)).status == 200
    await home.sleep("switch")
    [day, *_] = (await home.get("/operator/api/usage?days=2")).json["days"]
    told = await asyncio.to_thread(nats_command, "kv", "get", "VX11_USAGE", day["day"], "--raw")
    assert json.loads(told)["total"] == day["total"]


def test_micro_ping_is_answered(nats_command: Nats) -> None:
    assert "notebook" in nats_command("--timeout=1s", "micro", "ping", "notebook")


@pytest.mark.parametrize("kind", ["ping", "info", "stats"])
async def test_the_answers_are_valid_by_its_own_schemas(nats_command: Nats, home: House, kind: str) -> None:
    await home.sleep("switch")
    await home.order("wake", name="notebook")
    async with home.stock() as client:
        documents = await answers(client, f"$SRV.{kind.upper()}")
    assert len(documents) == len(KNOWN) + 1
    for document in documents:
        file = home.home / "answer.json"
        file.write_text(json.dumps(document))
        verdict = nats_command.run("schema", "validate", f"io.nats.micro.v1.{kind}_response", str(file))
        assert verdict.returncode == 0, f"{document['name']}: {verdict.stdout}{verdict.stderr}"


async def test_req_wakes_a_sleeper(nats_command: Nats, home: House) -> None:
    await home.sleep("notebook")
    told = await asyncio.to_thread(nats_command, "req", "--raw", "vx11.notebook.write", '{"text": "typed"}')
    assert json.loads(told)["pid"] > 0


def test_req_prints_an_error_as_one(nats_command: Nats) -> None:
    ran = nats_command.run("req", "vx11.notebook.write", "{}")
    assert "Nats-Service-Error-Code: 400" in ran.stderr
    assert json.loads(ran.stdout)["error"] == "invalid"


async def test_kv_watch_is_a_power_panel(nats_command: Nats, home: House) -> None:
    await heard(nats_command, home, "kv", "watch", "VX11_ACTORS", "notebook", stirred='"state":"waking"')


async def test_sub_hears_what_happens(nats_command: Nats, home: House) -> None:
    await heard(nats_command, home, "sub", "vx11.events.power.>", stirred="vx11.events.power.active.notebook")


def test_stream_view_shows_what_happened(nats_command: Nats) -> None:
    shown = nats_command.on_a_terminal("stream", "view", "VX11_EVENTS", "2", until="Next Page?")
    assert "[1] Subject: vx11.events.madre.started" in shown


def test_kv_get_shows_a_record(nats_command: Nats) -> None:
    assert json.loads(nats_command("kv", "get", "VX11_ACTORS", "madre", "--raw"))["state"] == "active"


async def test_an_event_that_it_publishes_is_handled(nats_command: Nats, home: House) -> None:
    await home.sleep("notebook")
    await asyncio.to_thread(nats_command, "pub", JOTTED, '{"text": "from the terminal"}')
    await until(lambda: "from the terminal" in (home.home / "notebook.jsonl").read_text(), "it was handled")


@pytest.mark.parametrize(
    "words",
    [
        ("stream", "rm", "VX11_EVENTS", "--force"),
        ("stream", "purge", "VX11_EVENTS", "--force"),
        ("stream", "rmm", "VX11_EVENTS", "1", "--force"),
        ("kv", "put", "VX11_ACTORS", "notebook", "{}"),
        ("kv", "add", "MINE"),
        ("sub", "vx11.>", "--count=1", "--wait=1s"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
async def test_it_is_refused_what_the_client_is_refused(nats_command: Nats, home: House, words: tuple[str, ...]) -> None:
    before = await home.last_event()
    ran = await asyncio.to_thread(nats_command.run, "--timeout=1s", *words)
    assert ran.returncode != 0 or "permissions violation" in (ran.stdout + ran.stderr).lower(), ran.stdout + ran.stderr
    assert await home.last_event() == before
