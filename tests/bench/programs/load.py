"""HTTP requests over kept connections, as cheaply as Python can: plain sockets and one poll, no HTTP library.

`closed`: each connection asks again as soon as it is answered. `open`: requests are due at fixed times, and the time of each
counts from when it was due, whether or not a connection was free then.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

LATE_S = 20.0
"""Beyond what the schedule takes; then the rest counts as failed."""
RECEIVE_BYTES = 65_536
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
BODY = json.dumps({"n": 7, "pad": "x" * 287}).encode()
"""306 bytes, as in the other measurements."""


@dataclass
class Connection:
    door: socket.socket
    due: float = 0.0
    got: bytes = b""


@dataclass
class Load:
    """`times`: seconds of each request that was answered 200. `lags`: how late a request was sent, by whose fault ever."""

    port: int
    token: str
    connections: int
    actor: str = "echo"
    times: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        head = f"POST /call/{self.actor}/echo HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nX-VX11-Token: {self.token}\r\n"
        head += f"traceparent: {TRACE}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self._request = head.encode() + BODY
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}
        for _ in range(self.connections):
            door = socket.create_connection(("127.0.0.1", self.port))
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(door, select.EPOLLIN)
            self._open[door.fileno()] = Connection(door)

    def closed(self, seconds: float) -> float:
        """Ask for so long; the seconds that it took until the last answer."""
        began = time.perf_counter()
        for one in self._open.values():
            self._send(one, time.perf_counter())
        end, asking = began + seconds, len(self._open)

        def again(one: Connection, now: float) -> None:
            nonlocal asking
            if now < end:
                self._send(one, now)
            else:
                asking -= 1

        while asking and time.perf_counter() < end + LATE_S:
            self._take(1.0, again)
        self.failed += asking
        return time.perf_counter() - began

    def open(self, rate: float, number: int) -> float:
        """`number` requests, one each 1/`rate` seconds; the seconds that it took."""
        idle, waiting = deque(self._open.values()), deque[float]()
        began, next_ = time.perf_counter() + 1 / rate, 0
        end = began + number / rate + LATE_S
        while len(self.times) + self.failed < number and (now := time.perf_counter()) < end:
            while next_ < number and began + next_ / rate <= now:
                waiting.append(began + next_ / rate)
                next_ += 1
            while waiting and idle:
                due = waiting.popleft()
                self.lags.append(time.perf_counter() - due)
                self._send(idle.popleft(), due)
            pause = began + next_ / rate - time.perf_counter() if next_ < number else 1.0
            self._take(max(0.0, pause), lambda one, _: idle.append(one))
        self.failed += number - len(self.times) - self.failed
        return time.perf_counter() - began

    def _send(self, one: Connection, due: float) -> None:
        one.due = due
        one.door.send(self._request)

    def _take(self, pause: float, answered: Callable[[Connection, float], None]) -> None:
        """Wait at most `pause` seconds for answers; select() keeps to it within microseconds, epoll to milliseconds."""
        if not select.select([self._poll], [], [], pause)[0]:
            return
        for fd, _ in self._poll.poll(0):
            one = self._open[fd]
            data = one.door.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the door closed a connection")
            one.got += data
            if (status := _status(one.got)) == 0:
                continue
            one.got, now = b"", time.perf_counter()
            if status == 200:
                self.times.append(now - one.due)
            else:
                self.failed += 1
            answered(one, now)


def _status(got: bytes) -> int:
    """Of the answer, 0 while it is not whole."""
    head, mark, body = got.partition(b"\r\n\r\n")
    if not mark:
        return 0
    _, _, after = head.lower().partition(b"content-length:")
    return int(got[9:12]) if len(body) >= int(after.partition(b"\r\n")[0]) else 0


def main(told: dict[str, float | int | str]) -> None:
    load = Load(int(told["port"]), str(told["token"]), int(told["connections"]), str(told.get("actor", "echo")))
    due = "rate" in told
    seconds = load.open(float(told["rate"]), int(told["number"])) if due else load.closed(float(told["seconds"]))
    times, lags = ([round(1000 * one, 3) for one in some] for some in (load.times, load.lags))
    print(json.dumps({"answered": len(times), "failed": load.failed, "seconds": seconds, "times_ms": times, "lags_ms": lags}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
