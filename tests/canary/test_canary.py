"""Canary secrets, sent through every door of a system that records everything, are found nowhere: logs, streams, Redis, files.

Each canary has a word of its own. Whoever takes away one rule of bus/redaction.py sees here which door it kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nats
import pytest
from redis import Redis

from bus import streams
from bus.client import Bus
from bus.supervisor import SERVICES
from gateway.tokens import TokenFile
from gateway.torture.system import System, door_open, scratch
from schemas.errors import Failure
from tests.e2e.house import until
from tests.switch.scripted import Exchange, scripted

SCHEMA = '''"""What can be asked of safe."""

from typing import ClassVar

from schemas.message import Event, Message, Request, Secret, Streamed


class Inside(Message):
    pin: Secret = ""


class Opened(Message):
    ticket: Secret
    api_key: str
    note: str
    hint: str
    inside: list[Inside]


class Open(Request[Opened]):
    subject: ClassVar = "vx11.safe.open"
    idempotent: ClassVar = True

    password: Secret
    api_key: str = ""
    note: str = ""
    hint: str = ""
    inside: list[Inside] = []
    fail: str = ""


class Piece(Message):
    text: Secret


class Said(Message):
    text: Secret


class Whisper(Streamed[Piece, Said]):
    subject: ClassVar = "vx11.safe.whisper"

    text: Secret


class Told(Event):
    subject: ClassVar = "vx11.events.safe.told"
    summary: ClassVar = "told {password}"

    password: Secret
    note: str = ""
    inside: Inside = Inside()
'''
ACTOR = '''"""safe: is told secrets, and hands them on in every way that an author may."""

import logging
import os
from collections.abc import AsyncIterator

from bus import Actor, Bus, Settings
from safe.schema import Inside, Open, Opened, Piece, Said, Told, Whisper
from schemas.errors import Failure

actor = Actor("safe", summary="is told secrets")
log = logging.getLogger("safe")


@actor.handles
async def open_(request: Open, bus: Bus, settings: Settings) -> Opened:
    key = settings.get("VX11_LLM_KEY")
    log.warning("a model would be asked with %s", key)
    bus.tell(Told(password="", note=f"a model was asked with {key}"))
    log.warning("opening with password=%s and {'api_key': '%s'}, %s", request.password, request.api_key, request.hint)
    if request.fail == "bug":
        raise RuntimeError(f"no door opens with {request.password}")
    if request.fail == "crash":
        os._exit(9)
    if request.fail == "failure":
        raise Failure("unavailable", f"no vault at {request.note}", where=request.note)
    event = Told(password=request.password, note=request.note, inside=Inside(pin=request.password))
    log.warning(event.told())
    await bus.publish(event)
    bus.tell(event)
    await bus.publish_raw(Told.subject, b'{"password": "***", "note": "%s"}' % request.note.encode())
    return Opened(ticket=request.password, api_key=request.api_key, note=request.note, hint=request.hint, inside=request.inside)


@actor.handles
async def whisper(request: Whisper) -> AsyncIterator[Piece | Said]:
    yield Piece(text=request.text)
    yield Said(text=request.text)


@actor.on(durable=True)
async def told(event: Told) -> None:
    log.warning("heard %s", event.model_dump_json())
'''
MEANT_TO_HOLD = re.compile(
    r"tokens\.env|tokens\.json|run\.json|nats/[a-z]+\.nk|redis/(redis\.conf|password)|provider\.key|.*/db\.key"
)
"""Files that keep secrets by intention, readable by their owner only."""
WORD = "CANARY"


class Canaries:
    """Secrets of every kind; `of` remembers them."""

    def __init__(self) -> None:
        self.sung: dict[str, str] = {}
        """Door to the word that must not be found."""

    def _word(self, door: str) -> str:
        return self.sung.setdefault(door, f"{WORD}{len(self.sung):02}{secrets.token_hex(6).upper()}")

    def plain(self, door: str) -> str:
        """Without any form: only its class, its name or its value gives it away."""
        return f"correct-{self._word(door)}-staple"

    def token(self, door: str) -> str:
        return f"vx11_0123abcd_{self._word(door)}".ljust(57, "x")

    def model_key(self, door: str) -> str:
        return f"sk-{self._word(door)}abcdef"

    def seed(self, door: str) -> str:
        return f"SU{self._word(door)}".ljust(58, "A")

    def url(self, door: str) -> str:
        return f"redis://:{self._word(door)}@vault.example:6379/0"

    def known(self, door: str, secret: str) -> None:
        """One that the system has made for itself."""
        self.sung[door] = secret

    def found_in(self, data: bytes) -> set[str]:
        return {door for door, word in self.sung.items() if word.encode() in data}


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def cage(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[System]:
    """A whole system, told of secrets by its environment and its files, that records all bodies."""
    home = tmp_path_factory.mktemp("cage")
    for file, text in {"__init__.py": "", "schema.py": SCHEMA, "actor.py": ACTOR}.items():
        (home / "actors" / "safe").mkdir(parents=True, exist_ok=True)
        (home / "actors" / "safe" / file).write_text(text)
    variables = {
        "VX11_ACTORS_PATH": str(home / "actors"),
        "VX11_RECORD": "full",
        "VX11_TOKEN": canaries.plain("the token of the environment"),
        "VX11_LLM_KEY": canaries.plain("the model key of the environment"),
        "OPENAI_API_KEY": canaries.model_key("another model key of the environment"),
        "DEEPSEEK_API_KEY": "",
        "OLLAMA_HOST": "127.0.0.1:9",
    }
    with scratch(home, services=",".join(SERVICES), variables=variables) as system:
        for user in ("madre", "client", "actor"):
            canaries.known(f"the seed of {user}", system.seed(user).read_text().strip())
        password = system.document()["redis_url"].split("@")[0].rpartition(":")[2]
        canaries.known("the password of Redis", password)
        yield system


async def known(system: System) -> None:
    """Return once everybody can be asked."""
    await door_open(system)
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="canary") as bus:

        async def all_known() -> bool:
            try:
                answer = await bus.ask("vx11.madre.list_actors", b"{}", timeout=5.0)
            except Failure:
                return False
            return {"safe", "switch", "operator_backend"} <= {one["name"] for one in json.loads(answer.body)["actors"]}

        await until(all_known, "madre knows the actors", 20.0)


async def through_http(system: System, canaries: Canaries) -> None:
    """Whatever the door answers: it is what remains of it that counts."""
    import aiohttp

    good = {"X-VX11-Token": TokenFile(system.home).new()[1]}
    canaries.known("a token of the file", good["X-VX11-Token"])
    wrong = canaries.token("a wrong token")
    note = f"{canaries.token('text with a token in it')} and {canaries.seed('text with a seed in it')}"
    opening = {
        "password": canaries.plain("a secret field over HTTP"),
        "api_key": canaries.plain("a field with a name of a secret"),
        "note": note,
        "hint": f"{canaries.model_key('text with a model key in it')} {canaries.url('a password in a URL in a text')}",
        "inside": [{"pin": canaries.plain("a secret field in the depth")}],
    }
    event = {
        "password": canaries.plain("a secret field of an event over HTTP"),
        "inside": {"pin": canaries.plain("and in its depth")},
    }
    asked = [
        (502, "POST", "/call/safe/open", good, {**opening, "fail": "crash"}),
        (403, "GET", "/operator/api/status", {"X-VX11-Token": wrong}, None),
        (403, "GET", "/operator/api/status", {"Authorization": f"Bearer {canaries.plain('a bearer')}"}, None),
        (401, "GET", "/operator/api/status", {"Authorization": f"Basic {canaries.plain('a basic password')}"}, None),
        (401, "GET", f"/operator/api/events?token={canaries.plain('a token in the query')}", {}, None),
        (400, "GET", f"/operator/api/events?limit={canaries.plain('a limit that is none')}", good, None),
        (404, "GET", f"/no/such/path?key={canaries.plain('a key on no path')}", good, None),
        (200, "POST", "/operator/api/chat", {**good, "Cookie": f"session={canaries.plain('a cookie')}"}, {"message": "hello"}),
        (200, "POST", "/call/safe/open", {**good, "X-Api-Key": canaries.plain("a strange header")}, opening),
        (500, "POST", "/call/safe/open", good, {**opening, "fail": "bug"}),
        (503, "POST", "/call/safe/open", good, {**opening, "fail": "failure", "note": canaries.url("a password in a URL")}),
        (400, "POST", "/call/safe/open", good, {"password": [canaries.plain("a secret of the wrong type")]}),
        (400, "POST", "/call/safe/open", good, {"passwrd": canaries.plain("a secret in a field that is none"), "password": "x"}),
        (400, "POST", "/call/safe/open", good, f'{{"password": "{canaries.plain("a secret in half a document")}"'.encode()),
        (200, "POST", "/call/safe/whisper", good, {"text": canaries.plain("secret chat text")}),
        (200, "POST", "/call/safe/whisper", {**good, "Accept": "text/event-stream"}, {"text": canaries.plain("a secret stream")}),
        (200, "POST", "/events/safe/told", good, event),
        (200, "POST", "/events/safe/other", good, {"note": note}),
    ]
    async with aiohttp.ClientSession() as http:
        for status, method, path, headers, body in asked:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if data else {}
            async with http.request(method, system.http_url + path, headers={**headers, **kind}, data=data) as answer:
                assert answer.status == status, await answer.text()
                await answer.read()


async def through_the_bus(system: System, canaries: Canaries) -> None:
    opening = {"password": canaries.plain("a secret field over the bus"), "note": canaries.token("a token over the bus")}
    client = await nats.connect(system.url, nkeys_seed=str(system.seed("client")))
    try:
        headers = {
            "Authorization": f"Bearer {canaries.plain('a header of the bus')}",
            "vx11-caller": canaries.token("a token as caller"),
            "vx11-request-id": canaries.token("a token as request id"),
        }
        await client.request("vx11.safe.open", json.dumps(opening).encode(), timeout=20, headers=headers)
        await client.request(f"vx11.safe.{canaries.token('a token as verb')}", b"{}", timeout=20)
        await client.request(
            "vx11.safe.open", json.dumps({"pasword": canaries.plain("a wrong field on the bus")}).encode(), timeout=20
        )
    finally:
        await client.close()
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="canary") as bus:
        await bus.publish_raw("vx11.events.safe.sang", json.dumps({"said": canaries.token("a token in an event")}).encode())


async def through_a_provider(system: System, canaries: Canaries) -> None:
    """It repeats the key that it was asked with, in the words of its refusal."""
    key = canaries.plain("the key of a provider")
    file = system.home / "provider.key"
    file.write_text(key)
    file.chmod(0o600)

    async def refuses(x: Exchange) -> None:
        await x.answer(401, {"error": {"message": f"Incorrect API key provided: {key}"}})

    async with (
        scripted(refuses, refuses) as server,
        Bus.connect(system.url, user="client", seed=system.seed("client"), name="canary") as bus,
    ):
        (system.home / "providers.toml").write_text(
            f'[studio]\nurl = "{server.url}"\nmodel = "tiny"\nkey_file = "provider.key"\n'
        )
        body = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
        with pytest.raises(Failure):
            await bus.ask("vx11.switch.chat", body, timeout=20.0)
        assert server.asked, "the provider was asked"


async def asleep(bus: Bus, actor: str) -> bool:
    """An event that has just come calls it back; then it is told again."""
    try:
        await bus.ask("vx11.madre.sleep", json.dumps({"name": actor}).encode(), timeout=20.0)
    except Failure as failure:
        if failure.code != "conflict":
            raise
        return False
    return True


async def settled(system: System) -> None:
    """All records and events are stored: what a call leaves behind comes after its answer."""
    end = time.monotonic() + 20
    async with Bus.connect(system.url, user="client", seed=system.seed("client"), name="canary") as bus:
        for actor in ("safe", "switch", "operator_backend"):
            await until(partial(asleep, bus, actor), f"{actor} sleeps", 20.0)
        await bus.ask("vx11.madre.list_actors", b"{}", timeout=20.0)
        last = -1
        while time.monotonic() < end:
            calls, letters = [
                (await bus.api(f"$JS.API.STREAM.INFO.{name}"))["state"]["last_seq"] for name in (streams.CALLS, streams.DLQ)
            ]
            if calls == last and letters:
                return
            last = calls
            await asyncio.sleep(0.5)


async def messages(system: System) -> dict[str, list[bytes]]:
    """Every message of every stream, its subject and headers too."""
    found: dict[str, list[bytes]] = {}
    client = await nats.connect(system.url, nkeys_seed=str(system.seed("madre")), inbox_prefix=b"_INBOX_madre")
    try:
        js = client.jetstream()
        for info in await js.streams_info():
            name = info.config.name
            kept = found[name] = []
            for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
                try:
                    msg = await js.get_msg(name, sequence)
                except nats.js.errors.NotFoundError:
                    continue  # replaced or gone since
                kept.append(f"{msg.subject} {msg.headers}".encode() + (msg.data or b""))
    finally:
        await client.close()
    return found


def redis_values(system: System) -> list[bytes]:
    with Redis.from_url(system.document()["redis_url"]) as redis:
        redis.save()
        return [key + (redis.dump(key) or b"") for key in redis.scan_iter()]


def files(system: System) -> dict[str, bytes]:
    found = {}
    for folder, _, names in os.walk(system.home):
        for path in (Path(folder) / name for name in names):
            short = str(path.relative_to(system.home))
            if not MEANT_TO_HOLD.fullmatch(short) and path.is_file():
                found[short] = path.read_bytes()
    return found


@pytest.mark.timeout(120)
def test_canary_secrets_are_found_nowhere(cage, canaries):
    async def all_doors() -> dict[str, list[bytes]]:
        await known(cage)
        await through_http(cage, canaries)
        await through_the_bus(cage, canaries)
        await through_a_provider(cage, canaries)
        await settled(cage)
        return await messages(cage)

    stored = asyncio.run(all_doors())
    places = {f"stream {name}": b"\n".join(kept) for name, kept in stored.items()}
    places["Redis"] = b"\n".join(redis_values(cage))
    places |= {f"file {name}": data for name, data in files(cage).items()}
    found = {place: doors for place, data in places.items() if (doors := canaries.found_in(data))}
    assert found == {}
    _was_looked_at_well(places, canaries)


def _was_looked_at_well(places: dict[str, bytes], canaries: Canaries) -> None:
    """Nothing is found also by who looks at nothing: what must be there is there."""
    assert len(canaries.sung) > 30
    calls, events, log = places["stream VX11_CALLS"], places["stream VX11_EVENTS"], places["file logs/safe.log"]
    assert calls.count(b'"password": "***"') >= 3
    assert b"RuntimeError: no door opens with ***" in log
    assert b"password=***" in log
    assert events.count(b'"password":"***"') >= 2
    assert b"vx11-dlq-reason" in places["stream VX11_DLQ"]
    assert any(name.startswith("file nats/") and b"vx11.calls.safe" in data for name, data in places.items())
