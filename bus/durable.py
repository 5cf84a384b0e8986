"""Durable event handlers of one awake instance: FastStream's pull subscribers behind a guard.

The only file that imports FastStream, itself imported only by an actor that has a durable handler. FastStream runs the
loop, the concurrency and the handlers; `bus.pull` gives it the messages and `bus.retry` takes their outcomes, because
on its own version 0.7 goes deaf when a consumer is deleted, freezes when a connection closes and drops failed events.
Names of FastStream that are not public: `_connect`, `_connection`, `config.connection_state.connect`, `tasks`, and
what `pull_subscribe` has to return; `tests/bus/test_durable.py` fails when they change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from bus import call
from bus.client import Bus
from bus.lean import absent
from bus.pull import FETCH_S, Pull
from bus.retry import LADDER_S, Retry
from bus.streams import ACK_WAIT_S
from bus.tries import Tries
from bus.wire import Msg, Wire

if TYPE_CHECKING:
    from types import TracebackType

    from faststream import ContextRepo
    from nats.aio.client import Client

UNWANTED = ("uvicorn", "aiohttp")
"""FastStream imports them when they are installed and uses neither here: 40 ms and 1 MB an actor, and 9 MB."""
WORKERS = 1
"""Handlers of one consumer at a time; with 1 events come in order until one of them fails."""
GRACE_S = 0.1
"""For FastStream to stop; the handlers have ended by then."""


with absent(*UNWANTED):
    from faststream import AckPolicy, BaseMiddleware, StreamMessage
    from faststream.nats import JStream, NatsBroker, PullSub
    from nats.js.api import ConsumerConfig


@dataclass(frozen=True)
class Durable:
    """A durable consumer `name` of `stream` and the coroutine function that handles its messages.

    `run` gets the message as it came (`subject`, `data`, `headers`), at least once. It raises pydantic.ValidationError
    when the message can never be handled; any other exception means: try again later.
    """

    name: str
    stream: str
    subjects: Sequence[str]
    run: Callable[[Msg], Awaitable[None]]


Consumers = dict[tuple[str, str], tuple[Pull, Retry]]
"""By stream and name."""


class DurableConsumers:
    """Runs durable handlers on a connection that somebody else opened, and closes after `stop`."""

    def __init__(
        self,
        wire: Wire,
        durables: Sequence[Durable],
        *,
        workers: int = WORKERS,
        ladder: tuple[float, ...] = LADDER_S,
        ack_wait_s: float = ACK_WAIT_S,
    ) -> None:
        self._wire, self._durables, self._workers = wire, durables, workers
        self._ladder, self._ack_wait_s = ladder, ack_wait_s
        self._bus = Bus(wire, name="")
        self._consumers: Consumers = {}
        self._broker: _Broker | None = None
        self.settled = 0
        """Messages that will not come again."""
        self.on_first: Callable[[], None] = lambda: None
        """Called when the first one is settled."""

    async def start(self) -> None:
        """Begin to consume. Without a server, stream or consumer it goes on looking for them; it does not fail."""
        bus = self._bus
        self._consumers = {}
        for durable in self._durables:
            key = durable.stream, durable.name
            pull = Pull(self._wire, bus.api, *key, durable.subjects, slots=self._workers, ack_wait_s=self._ack_wait_s)
            pull.on_settled = self._count
            retry = Retry(pull, bus.api, Tries(bus), max_payload=self._wire.max_payload, ladder=self._ladder)
            self._consumers[key] = pull, retry
        self._broker = _Broker(self._wire, self._consumers)
        for durable in self._durables:
            self._broker.add(durable, self._workers)
        await self._broker.start()

    async def release(self) -> None:
        """Take nothing more and hand back at once what is not begun. Before `start` comes `stop`."""
        await asyncio.gather(*(pull.release() for pull, _ in self._consumers.values()))

    async def stop(self, patience_s: float | None = None) -> None:
        """`release`, let running handlers finish, leave the connection open.

        `patience_s`: after it handlers are cancelled and their messages handed back; None: they are never cut.
        """
        if self._broker is None:
            return
        await self.release()
        pulls = [pull for pull, _ in self._consumers.values()]
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.gather(*(pull.emptied() for pull in pulls))
        except TimeoutError:
            await asyncio.gather(*(pull.cancel() for pull in pulls))
        await self._broker.stop()
        self._broker = None

    def _count(self) -> None:
        self.settled += 1
        if self.settled == 1:
            self.on_first()

    def pending(self) -> int:
        """Messages in hand: begun, or about to."""
        return sum(pull.in_hand for pull, _ in self._consumers.values())


class _Broker(NatsBroker):
    """A broker on a borrowed connection, which takes its messages from pulls of ours."""

    def __init__(self, wire: Wire, consumers: Consumers) -> None:
        super().__init__(
            name=None,
            logger=None,
            apply_types=False,
            serializer=None,
            decoder=_as_it_came,
            middlewares=[self._guard],
            graceful_timeout=GRACE_S,
        )
        self._wire, self._consumers = wire, consumers

    def add(self, durable: Durable, workers: int) -> None:
        async def handle(msg: Any) -> None:  # FastStream looks at the annotation and knows no Msg
            await durable.run(msg)

        subscriber = self.subscriber(
            stream=JStream(durable.stream, declare=False),  # a bare name would reset the stream's limits on start
            durable=durable.name,
            config=ConsumerConfig(filter_subjects=list(durable.subjects)),
            pull_sub=PullSub(workers, timeout=FETCH_S),
            max_workers=workers,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,  # else a publisher could name, in a header, a subject for us to publish to
        )
        subscriber(handle)

    def _guard(self, msg: Any, /, *, context: ContextRepo) -> _Guard:
        pull, retry = self._consumers[msg.delivery.stream, msg.delivery.consumer]
        return _Guard(msg, context=context, pull=pull, retry=retry)

    async def _connect(self) -> Client:
        wire: Any = self._wire  # FastStream's own publishers, which would need nats-py's connection, are not used
        streams: Any = _Streams(self._consumers)
        self.config.connection_state.connect(wire, streams)
        return cast("Client", wire)

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Stop consuming; the connection stays open."""
        loops = [task for subscriber in self.subscribers for task in getattr(subscriber, "tasks", ())]
        self._connection = None  # else it would be drained and closed
        await super().stop(exc_type, exc_val, exc_tb)
        await asyncio.gather(*loops, return_exceptions=True)  # FastStream cancels them and does not wait


class _Streams:
    """Gives FastStream one of our pulls where it asks nats-py for a pull subscription."""

    def __init__(self, consumers: Consumers) -> None:
        self._consumers = consumers

    async def pull_subscribe(self, *args: Any, **options: Any) -> Any:
        del args
        pull, _ = self._consumers[options["stream"], options["durable"]]
        await pull.open()
        return pull


class _Guard(BaseMiddleware[Any, Any]):
    """Stands around every message: nothing that happens to it reaches FastStream."""

    def __init__(self, msg: Msg, /, *, context: ContextRepo, pull: Pull, retry: Retry) -> None:
        super().__init__(msg, context=context)
        self._pull, self._retry = pull, retry

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> None:
        await self._take(partial(call_next, msg))

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool:
        """Take the failures of FastStream's own parsing, which come before `consume_scope`."""
        del exc_type, exc_tb
        if isinstance(exc_val, Exception):
            await self._take(partial(_fail, exc_val))
            return True
        return False

    async def _take(self, run: Callable[[], Awaitable[Any]]) -> None:
        if not self._pull.begin(self.msg):
            return
        settled = False
        circumstances = call.call_from(self.msg.headers)
        token = call.current.set(circumstances._replace(deadline=0.0))  # an event outlives what it was published in
        try:
            settled = await self._retry.handle(self.msg, run)
        finally:
            call.current.reset(token)
            self._pull.done(self.msg, settled=settled)


async def _as_it_came(msg: StreamMessage[Msg]) -> Msg:
    return msg.raw_message


async def _fail(error: Exception) -> None:
    raise error
