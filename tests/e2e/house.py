"""A whole VX11 in a folder of its own, as its users see it: the door, the bus, the log, the processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import nats
import psutil
from nats.aio.client import Client

from bus.client import Bus
from bus.daemon import free_port
from bus.eventlog import EventLog, Stored
from bus.process import is_same
from gateway.tokens import TokenFile
from gateway.torture.system import System, scratch
from schemas.errors import Failure
from tests.switch.scripted import Script, Server, scripted

ACTORS = Path(__file__).parent / "actors"
SERVICES = "madre,host,keeper,tentaculo_link"
KNOWN = {"notebook", "operator_backend", "switch"}
"""Who is asleep in a house that has just been started."""
NO_MODELS = {"OPENAI_API_KEY": "", "DEEPSEEK_API_KEY": "", "OLLAMA_HOST": "127.0.0.1:9"}
"""What the machine that runs the tests has is none of their business."""
WAIT_S = 10.0
LOOK_S = 0.02


@dataclass
class Reply:
    """An answer of the door, read whole."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class House:
    """`token`: may do everything."""

    def __init__(self, system: System, door: str, control: str, token: str) -> None:
        self.system = system
        self.door = door
        self.control = control
        self.token = token
        self.home = system.home
        self.tokens = TokenFile(system.home)

    # -- the door ----------------------------------------------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        control: bool = False,
    ) -> Reply:
        """`token`: empty for the good one, None for none. `body`: bytes as they are, anything else as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("X-VX11-Token", token or self.token)
        options: dict[str, Any] = (
            {"data": BytesIO(body)} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        )
        url = (self.control if control else self.door) + path
        async with aiohttp.ClientSession() as http, http.request(method, url, headers=sent, **options) as answer:
            return Reply(answer.status, answer.headers, await answer.text())

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return await self.ask("POST", path, body, **more)

    async def chat(self, message: str = "hello", **more: Any) -> Reply:
        return await self.post("/operator/api/chat", {"message": message, **more.pop("body", {})}, **more)

    async def chat_stream(self, message: str = "hello") -> list[Event]:
        """The events of a streamed answer. It is not remembered, so that it keeps nobody awake after it."""
        async with self.follow("POST", "/operator/api/chat", json={"message": message, "stream": True}) as events:
            return [event async for event in events]

    @asynccontextmanager
    async def follow(
        self, method: str, path: str, *, token: str | None = "", **options: Any
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of an event stream, as they come."""
        headers = {"Accept": "text/event-stream", **options.pop("headers", {})}
        if token is not None:
            headers["X-VX11-Token"] = token or self.token
        url = self.door + path
        async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers, **options) as answer:
            assert answer.status == 200, await answer.text()
            yield _events(answer.content)

    @asynccontextmanager
    async def model(self, *scripts: Script) -> AsyncIterator[Server]:
        """A language model by the name of `tiny`, of the provider `studio`, that says what its scripts say."""
        file = self.home / "providers.toml"
        async with scripted(*scripts) as server:
            file.write_text(f'[studio]\nurl = "{server.url}"\nmodel = "tiny"\n')
            try:
                yield server
            finally:
                file.unlink()

    # -- the bus -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def bus(self, user: str = "client") -> AsyncIterator[Bus]:
        """Our own client."""
        async with Bus.connect(self.system.url, user=user, seed=self.system.seed(user), name="e2e") as bus:
            yield bus

    @asynccontextmanager
    async def stock(self, *, errors: list[Exception] | None = None) -> AsyncIterator[Client]:
        """nats-py as anybody installs it, with the seed file of `client` and nothing else of VX11."""

        async def told(error: Exception) -> None:
            if errors is not None:
                errors.append(error)

        client = await nats.connect(self.system.url, nkeys_seed=str(self.system.seed("client")), error_cb=told)
        try:
            yield client
        finally:
            await client.close()

    async def last_event(self) -> int:
        async with self.bus() as bus:
            return (await EventLog(bus).bounds())[1]

    async def events(self, after: int) -> list[Stored]:
        """What was stored above `after`."""
        async with self.bus() as bus:
            return await EventLog(bus).read(after, 10_000)

    # -- who is awake ------------------------------------------------------------------------------------------------

    async def status(self, name: str) -> dict[str, Any]:
        """madre's word on one actor."""
        return dict((await self.order("get_actor", name=name))["status"])

    async def states(self) -> dict[str, str]:
        async with self.bus() as bus:
            answer = await bus.ask("vx11.madre.list_actors", b"{}", timeout=5.0)
        return {actor["name"]: actor["state"] for actor in json.loads(answer.body)["actors"]}

    async def order(self, verb: str, **fields: Any) -> Any:
        """A verb of madre. One that has just started is asked again, until the host has told her of its actors."""
        end = time.monotonic() + WAIT_S
        while True:
            try:
                async with self.bus() as bus:
                    answer = await bus.ask(f"vx11.madre.{verb}", json.dumps(fields).encode(), timeout=30.0)
                return json.loads(answer.body)
            except Failure as failure:
                if failure.code != "unavailable" or time.monotonic() > end:
                    raise
            await asyncio.sleep(LOOK_S)

    async def sleep(self, *names: str) -> None:
        """Put to sleep whoever is awake."""
        for name in names or KNOWN:
            await self.order("sleep", name=name)

    async def asleep(self, *names: str, seconds: float = WAIT_S) -> None:
        """Wait until they have gone to sleep by themselves."""

        async def all_sleep() -> bool:
            states = await self.states()
            return all(states[name] == "dormant" for name in names)

        await until(all_sleep, f"{', '.join(names)} sleep", seconds)

    async def begun(self, *texts: str) -> None:
        """Wait until notebook has these in its hands."""
        file = self.home / "notebook.begun"
        await until(lambda: file.exists() and set(texts) <= set(file.read_text().splitlines()), f"{', '.join(texts)} has begun")

    # -- processes ---------------------------------------------------------------------------------------------------

    def pid(self, name: str) -> int:
        return self.system.pid(name)

    async def kill(self, name: str) -> float:
        """kill -9 of a part; its pid and start are another's once `back` returns. Returns the start of the killed one."""
        entry = self.system.document()["pids"][name]
        os.kill(int(entry["pid"]), signal.SIGKILL)
        await until(lambda: not is_same(int(entry["pid"]), float(entry["born"])), f"{name} is dead")
        return float(entry["born"])

    async def back(self, name: str, since: float) -> None:
        """Wait until the supervisor has started the part again."""
        await until(lambda: self.system.document()["pids"][name]["born"] > since, f"{name} is back")

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def processes(self) -> list[psutil.Process]:
        """Every process of this house."""
        return [self.supervisor, *self.supervisor.children(recursive=True)]

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.system.process.pid)


@dataclass
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: Any


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for raw in content:
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            key, _, value = line.partition(": ")
            fields[key] = value
        elif not line:
            if "data" in fields:  # a sign of life has none
                yield Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
            fields = {}


async def until(condition: Callable[[], Awaitable[object] | object], what: str, seconds: float = WAIT_S) -> None:
    """Wait for the condition; `what` is the failure's text."""
    end = time.monotonic() + seconds
    while True:
        met = condition()
        if await met if isinstance(met, Awaitable) else met:
            return
        if time.monotonic() > end:
            raise AssertionError(f"not so after {seconds:g} s: {what}")
        await asyncio.sleep(LOOK_S)


@contextmanager
def house(home: Path, variables: Mapping[str, str] | None = None, *, actors: Mapping[str, Any] | None = None) -> Iterator[House]:
    """Start one, and wait until its door is open and it knows its actors."""
    door, control = (f"127.0.0.1:{free_port()}" for _ in range(2))
    told = {
        "VX11_TEST_RUN": os.environ["VX11_TEST_RUN"],
        "VX11_ACTORS_PATH": os.pathsep.join((str(ACTORS), str(home / "actors"))),
        "VX11_HTTP_BIND": door,
        "VX11_CONTROL_BIND": control,
        "VX11_HTTP_RATE": "0",
        "PYTHONDONTWRITEBYTECODE": "",  # as on a machine where nobody has thought of it
        **NO_MODELS,
        **(variables or {}),
    }
    with scratch(home, services=SERVICES, variables=told) as system:
        made = House(system, f"http://{door}", f"http://{control}", TokenFile(home).new()[1])
        asyncio.run(_ready(made))
        yield made


async def _ready(made: House) -> None:
    async def ready() -> bool:
        try:
            if (await made.get("/health/ready")).status != 200:
                return False
        except aiohttp.ClientConnectionError:
            return False
        states = await made.states()
        return set(states) >= KNOWN

    await until(ready, "the house is open and knows its actors", 30.0)
