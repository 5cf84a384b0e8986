"""What a stranger may send to the door, and what may come back: a table."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

from tests.fuzz.conftest import TOKEN

OK = frozenset({200})
BAD = frozenset({400})
GONE = frozenset({404})
NOT_SO = frozenset({405})
LONG = frozenset({413})
MEDIA = frozenset({415})
NO_TOKEN = frozenset({401})
WRONG_TOKEN = frozenset({403})
WRITE = b"/call/notebook/write"
JSON = b"Content-Type: application/json\r\n"
KEY = b"X-VX11-Token: " + TOKEN.encode() + b"\r\n"
HOST = b"Host: localhost\r\n"
LOOK = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
UPGRADE = b"Connection: Upgrade\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True)
class Case:
    """`written`: how often its mark may end up in the notebook. `shut`: nothing after it on this connection is answered.

    Without `shut` an honest last request follows. `silent`: the connection may close without any answer.
    """

    name: str
    pieces: tuple[bytes, ...]
    answers: tuple[frozenset[int], ...]
    written: int = 0
    shut: bool = False
    silent: bool = False
    half: bool = False
    alone: bool = False
    """Nothing is sent after it, for that would be a part of it, or a fault of its own."""

    @property
    def bodiless(self) -> bool:
        return self.pieces[0].startswith(b"HEAD ")


def mark(name: str) -> bytes:
    """The body that writes the name of the case into the notebook."""
    return json.dumps({"text": name}).encode()


def post(head: bytes = b"", body: bytes = b"", path: bytes = WRITE) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + KEY + JSON + head + b"\r\n" + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def write(name: str) -> bytes:
    """An honest request that writes the mark."""
    return post(length(mark(name)), mark(name))


def chunk(body: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(body), extension, body)


def get(path: bytes, head: bytes = b"", *, method: bytes = b"GET", version: bytes = b"HTTP/1.1", host: bytes = HOST) -> bytes:
    return method + b" " + path + b" " + version + b"\r\n" + host + head + b"\r\n"


END = b"0\r\n\r\n"


def _smuggled(name: str, head: bytes, before: bytes = END) -> Case:
    """Framing that two readers may read in two ways: what one of them takes for a second request must not be done."""
    return Case(name, (post(head, before + write(name)),), (BAD,), shut=True)


def _framed(name: str, head: bytes, body: bytes) -> Case:
    return Case(name, (post(head, body),), (BAD,), shut=True)


def _whole(name: str, sent: bytes, *answers: frozenset[int], **more: int | bool) -> Case:
    return Case(name, (sent,), answers, **more)  # type: ignore[arg-type]


SMUGGLING = (
    _smuggled("length and chunked", b"Content-Length: 5\r\n" + CHUNKED),
    _smuggled("chunked and length", CHUNKED + b"Content-Length: 5\r\n"),
    _smuggled("chunked and a length of zero", CHUNKED + b"Content-Length: 0\r\n"),
    _smuggled("two lengths that differ", b"Content-Length: 0\r\nContent-Length: 5\r\n"),
    _smuggled("two lengths alike", b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    _smuggled("two lengths in one header", b"Content-Length: 5, 5\r\n"),
    _smuggled("a signed length", b"Content-Length: +5\r\n"),
    _smuggled("a negative length", b"Content-Length: -5\r\n"),
    _smuggled("a length in hexadecimal", b"Content-Length: 0x5\r\n"),
    _smuggled("a length with an underscore", b"Content-Length: 0_5\r\n"),
    _smuggled("a length beyond 64 bits", b"Content-Length: 18446744073709551621\r\n"),
    _smuggled("a length of other digits", "Content-Length: ５\r\n".encode()),
    _smuggled("no length at all", b"Content-Length:\r\n"),
    _smuggled("a space before the colon of a length", b"Content-Length : 5\r\n"),
    _smuggled("a space before the colon of a coding", b"Transfer-Encoding : chunked\r\n"),
    _smuggled("chunked by another name", b"Transfer-Encoding: xchunked\r\n"),
    _smuggled("chunked in quotes", b'Transfer-Encoding: "chunked"\r\n'),
    _smuggled("chunked twice", CHUNKED * 2),
    _smuggled("chunked, then identity", b"Transfer-Encoding: chunked, identity\r\n"),
    _smuggled("identity beside chunked", b"Transfer-Encoding: identity\r\n" + CHUNKED),
    _smuggled("a vertical tab before chunked", b"Transfer-Encoding: \x0bchunked\r\n"),
    _smuggled("a folded coding", b"Transfer-Encoding:\r\n chunked\r\n"),
    _smuggled("a coding behind a bare line feed", b"X-A: b\nTransfer-Encoding: chunked\r\n"),
    _smuggled("a coding behind a bare carriage return", b"X-A: b\rTransfer-Encoding: chunked\r\n"),
    _smuggled("a coding behind a NUL", b"X-A: b\x00Transfer-Encoding: chunked\r\n"),
    _whole("a body of a GET is a body", get(b"/health", length(LOOK)) + LOOK, OK),
    _whole("a request in the body is text", post(length(write("in a body")), write("in a body")), BAD),
    _whole("chunks in a request of 1.0", post(CHUNKED, END).replace(b"HTTP/1.1", b"HTTP/1.0"), BAD, shut=True),
)

CHUNKS = (
    _whole("whole chunks", post(CHUNKED, chunk(mark("whole chunks")) + END), OK, written=1),
    _whole("a byte a chunk", post(CHUNKED, b"".join(chunk(b"%c" % b) for b in mark("a byte a chunk")) + END), OK, written=1),
    _whole(
        "an extension of a chunk",
        post(CHUNKED, chunk(mark("an extension of a chunk"), b';a=b;c="d"') + END),
        OK | BAD,
        written=1,
    ),
    _framed("a bare line feed in an extension", CHUNKED, chunk(mark("x"), b";a\nb") + END),
    _whole("an endless extension", post(CHUNKED, chunk(mark("x"), b";" + b"a" * 100_000) + END), OK | BAD),
    _whole("trailers", post(CHUNKED, chunk(mark("trailers")) + b"0\r\nX-VX11-Token: other\r\n\r\n"), OK | BAD, written=1),
    _framed("a folded trailer", CHUNKED, chunk(mark("x")) + b"0\r\nX-A: b\r\n c\r\n\r\n"),
    _framed("a thousand trailers", CHUNKED, chunk(mark("x")) + b"0\r\n" + b"X-A: b\r\n" * 1_000 + b"\r\n"),
    _framed("a size that is none", CHUNKED, b"zz\r\n{}\r\n" + END),
    _framed("a size with a prefix", CHUNKED, b"0x2\r\n{}\r\n" + END),
    _framed("a negative size", CHUNKED, b"-2\r\n{}\r\n" + END),
    _framed("a size beyond 64 bits", CHUNKED, b"ffffffffffffffff2\r\n{}\r\n" + END),
    _framed("an empty size", CHUNKED, b"\r\n{}\r\n" + END),
    _framed("a chunk that is longer than its size", CHUNKED, b"2\r\n{}{}\r\n" + END),
    _framed("chunks behind bare line feeds", CHUNKED, b"2\n{}\n0\n\n"),
)

HEADS = (
    _whole("bare line feeds", LOOK.replace(b"\r\n", b"\n"), BAD, shut=True),
    _whole("bare carriage returns", LOOK.replace(b"\r\n", b"\r"), BAD, shut=True, silent=True),
    _whole("a folded header", get(b"/health", b"X-A: b\r\n c\r\n"), BAD, shut=True),
    _whole("a space in a name", get(b"/health", b"X A: b\r\n"), BAD, shut=True),
    _whole("a header without a colon", get(b"/health", b"nonsense\r\n"), BAD, shut=True),
    _whole("a header without a name", get(b"/health", b": b\r\n"), BAD, shut=True),
    _whole("a NUL in a header", get(b"/health", b"X-A: \x00\r\n"), BAD, shut=True),
    _whole("a header that is no UTF-8", get(b"/health", b"X-A: \xff\xfe\r\n"), OK),
    _whole("a conversation that is no UTF-8", get(b"/health", b"X-Correlation-Id: \xff\xfe\r\n"), OK),
    _whole("a trace that is no UTF-8", get(b"/health", b"traceparent: \xff\r\ntracestate: \xff\r\n"), OK),
    _whole("a long header", get(b"/health", b"X-A: " + b"a" * 20_000 + b"\r\n"), BAD, shut=True),
    _whole("a thousand headers", get(b"/health", b"X-A: b\r\n" * 1_000), BAD, shut=True),
    _whole("a long address", get(b"/" + b"a" * 20_000), BAD, shut=True),
    _whole("empty lines first", b"\r\n\r\n" + LOOK, OK | BAD),
    _whole("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD, shut=True, silent=True),
    _whole("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD, shut=True),
    _whole("NULs", b"\x00" * 100, BAD, shut=True),
    _whole("all bytes", bytes(range(256)) * 4, BAD, shut=True),
)

LINES = (
    _whole("no version", b"GET /health\r\n\r\n", BAD, shut=True),
    _whole("version 0.9", get(b"/health", version=b"HTTP/0.9"), BAD, shut=True),
    _whole("version 1.0", get(b"/health", version=b"HTTP/1.0"), OK, shut=True, alone=True),
    _whole("version 1.9", get(b"/health", version=b"HTTP/1.9"), BAD, shut=True),
    _whole("version 9.9", get(b"/health", version=b"HTTP/9.9"), BAD, shut=True),
    _whole("another protocol", get(b"/health", version=b"SIP/2.0"), BAD, shut=True),
    _whole("two spaces", get(b" /health"), OK | BAD),
    _whole("an address that is no UTF-8", get(b"/\xff\xfe"), BAD, shut=True),
    _whole("an escape that is no UTF-8", get(b"/%ff%fe"), GONE),
    _whole("a NUL, escaped", get(b"/health%00"), GONE),
    _whole("half an escape", get(b"/health%"), BAD | GONE),
    _whole("a line feed, escaped", post(length(b"{}"), b"{}", b"/call/notebook/write%0d%0aX-A:%20b"), GONE),
    _whole("a line feed in what is nowhere", get(b"/%0d%0a"), GONE),
    _whole("an escaped slash is no slash", post(length(mark("x")), mark("x"), b"/call/notebook%2fwrite"), GONE),
    _whole("an escaped dot", post(length(b"{}"), b"{}", b"/call/madre%2eevil/chat"), GONE),
    _whole("a wildcard for an actor", post(length(b"{}"), b"{}", b"/call/*/write"), GONE),
    _whole("two dots do not go up", get(b"/operator/../health"), GONE),
    _whole("two slashes", get(b"//health"), GONE),
    _whole("the whole address", get(b"http://localhost/health"), OK),
    _whole("the whole address of another", get(b"http://evil.example/health"), OK | BAD),
    _whole("an address of another scheme", get(b"file:///etc/passwd"), BAD, shut=True),
    _whole("an asterisk", get(b"*", method=b"OPTIONS"), BAD | GONE | NOT_SO),
    _whole("CONNECT", get(b"localhost:80", method=b"CONNECT"), BAD | GONE | NOT_SO),
    _whole("TRACE", get(b"/health", method=b"TRACE"), NOT_SO),
    _whole("OPTIONS", get(b"/health", method=b"OPTIONS"), NOT_SO),
    _whole("DELETE", get(b"/health", method=b"DELETE"), NOT_SO),
    _whole("HEAD is GET without the body", get(b"/health", method=b"HEAD"), OK),
    _whole("HEAD of what needs a token", get(b"/api/map", method=b"HEAD"), NO_TOKEN),
    _whole(
        "HEAD of an event stream ends", get(b"/operator/api/events", KEY + b"Accept: text/event-stream\r\n", method=b"HEAD"), OK
    ),
    _whole("HEAD of what only takes POST", get(WRITE, KEY, method=b"HEAD"), NOT_SO),
    _whole("a method of small letters", get(b"/health", method=b"get"), BAD | NOT_SO, shut=True),
    _whole("a method of its own", get(b"/health", method=b"BREW"), BAD | NOT_SO, shut=True),
    _whole("a long method", get(b"/health", method=b"A" * 10_000), BAD, shut=True),
    _whole("a method with a NUL", get(b"/health", method=b"GE\x00T"), BAD, shut=True),
)

HOSTS = (
    _whole("no host", get(b"/health", host=b""), BAD, shut=True),
    _whole("two hosts", get(b"/health", b"Host: evil.example\r\n"), BAD, shut=True),
    _whole("an empty host", get(b"/health", host=b"Host:\r\n"), OK | BAD),
    _whole("a host that is none", get(b"/health", host=b"Host: a b/@:99999\r\n"), OK | BAD),
    _whole("a host that is no UTF-8", get(b"/health", host=b"Host: \xff\r\n"), OK | BAD),
)

TOKENS = (
    _whole("no token", get(b"/api/map"), NO_TOKEN),
    _whole("an empty token", get(b"/api/map", b"X-VX11-Token:\r\n"), NO_TOKEN),
    _whole("the same token twice", get(b"/api/map", KEY * 2), OK),
    _whole("two tokens", get(b"/api/map", KEY + b"X-VX11-Token: other\r\n"), BAD),
    _whole("two tokens by two headers", get(b"/api/map", KEY + b"Authorization: Bearer other\r\n"), BAD),
    _whole("a token that is no UTF-8", get(b"/api/map", b"X-VX11-Token: \xff\xfe\r\n"), WRONG_TOKEN),
    _whole("a bearer that is no UTF-8", get(b"/api/map", b"Authorization: Bearer \xff\r\n"), WRONG_TOKEN),
    _whole("a long token", get(b"/api/map", b"X-VX11-Token: " + b"a" * 8_000 + b"\r\n"), WRONG_TOKEN),
    _whole("a token with a NUL", get(b"/api/map", b"X-VX11-Token: a\x00b\r\n"), BAD, shut=True),
    _whole("a token in the address", get(b"/api/map?token=" + TOKEN.encode()), NO_TOKEN),
    _whole("two conditions of a trace", get(b"/health", b"traceparent: a\r\ntraceparent: b\r\n"), OK),
)


def _body(name: str, body: bytes, *answers: frozenset[int], head: bytes = b"", path: bytes = WRITE, **more: bool) -> Case:
    return _whole(name, post(length(body) + head, body, path), *answers, **more)


CHAT = b"/operator/api/chat"
NESTED = b"[" * 100_000 + b"]" * 100_000
BOMBS = (
    _body("a compressed body", gzip.compress(b"0" * 10_000_000), MEDIA, head=b"Content-Encoding: gzip\r\n"),
    _body("two codings of a body", mark("x"), OK | MEDIA, head=b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"),
    _body("a coding that is no UTF-8", mark("x"), MEDIA, head=b"Content-Encoding: \xff\r\n"),
    _body("deep JSON", b'{"text": ' + NESTED + b"}", BAD),
    _body("deep JSON where any is taken", b'{"message": "x", "metadata": {"a": ' + NESTED + b"}}", BAD, path=CHAT),
    _body("deep JSON of an event", b'{"text": ' + NESTED + b"}", BAD, path=b"/events/notebook/jotted"),
    _body("deep JSON of a strange event", b'{"a": ' + NESTED + b"}", BAD, path=b"/events/notebook/strange"),
    _body("JSON as deep as can be", b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", OK, path=b"/events/notebook/strange"),
    _body("a number of a million digits", b'{"text": "x", "seconds": ' + b"9" * 1_000_000 + b"}", BAD),
    _body("a number of another size", b'{"text": "x", "seconds": 1e999}', BAD),
    _body("no number", b'{"text": "x", "seconds": NaN}', BAD),
    _body("a body that is no UTF-8", b'{"text": "\xff"}', BAD),
    _body("half a surrogate", b'{"text": "\\ud800"}', BAD),
    _whole("another kind of body", post(length(b"<a/>"), b"<a/>").replace(JSON, b"Content-Type: text/xml\r\n"), MEDIA),
    _body("two kinds of body", b"{}", BAD, head=b"Content-Type: text/xml\r\n", shut=True),
    _body("an empty object", b"{}", BAD),
    _body("a body of spaces", b" " * 100_000, BAD),
    _whole("a body that is too long", post(length(b"x" * 1_048_577), b"x" * 1_048_577), LONG, shut=True),
    _whole("an endless body", post(CHUNKED, chunk(b"x" * 1_000_000) * 4), LONG, shut=True),
    _whole("an announced terabyte", post(b"Content-Length: 1099511627776\r\n"), LONG, shut=True),
    _body("an empty key", b"{}", BAD, head=b"Idempotency-Key: \xff\r\n"),
)

FLOWS = (
    _whole("three at once", write("three at once") + LOOK + write("three at once"), OK, OK, OK, written=2),
    Case("a bad one behind a good one", (write("a bad one behind a good one"), b"\x00\r\n\r\n"), (OK, BAD), shut=True, written=1),
    _whole("an upgrade", get(b"/health", UPGRADE + b"Upgrade: websocket\r\n"), OK),
    Case("an upgrade to HTTP/2", (get(b"/health", UPGRADE + b"Upgrade: h2c\r\n"), LOOK), (OK, OK)),
    Case(
        "an upgrade of what writes",
        (
            post(UPGRADE + b"Upgrade: h2c\r\n" + length(mark("an upgrade of what writes")), mark("an upgrade of what writes")),
            LOOK,
        ),
        (OK, OK),
        written=1,
    ),
    _whole("a request behind an upgrade", get(b"/health", UPGRADE + b"Upgrade: websocket\r\n") + LOOK, OK, OK),
    _whole("another expectation", get(b"/health", b"Expect: miracles\r\n"), OK),
    Case(
        "a body after the word to go on",
        (
            post(b"Expect: 100-continue\r\n" + length(mark("a body after the word to go on"))),
            mark("a body after the word to go on"),
        ),
        (frozenset({100}), OK),
        written=1,
    ),
    _whole("the last one", get(b"/health", b"Connection: close\r\n") + write("the last one"), OK | BAD, shut=True),
    _whole("half closed", LOOK, OK, half=True, alone=True, shut=True, silent=True),
    _whole(
        "half a body, half closed", post(b"Content-Length: 100\r\n", b"{"), BAD, half=True, alone=True, shut=True, silent=True
    ),
    _whole("nothing, half closed", b"", half=True, alone=True, shut=True),
)

SLOW = (
    Case("nothing", (b"",), (), shut=True, alone=True),
    Case("half a line", (b"GET /hea",), (), shut=True, alone=True),
    Case("half a head", (get(b"/health")[:-2],), (), shut=True, alone=True),
    Case("a byte now and then", tuple(b"%c" % byte for byte in LOOK), (), shut=True, alone=True),
    Case("half a head behind a good one", (LOOK + b"GET /hea",), (OK,), shut=True, alone=True),
    Case("no body", (post(b"Content-Length: 10\r\n"),), (BAD,), shut=True, alone=True),
    Case("half a body", (post(b"Content-Length: 10\r\n", b'{"te'),), (BAD,), shut=True, alone=True),
    Case("half a chunk", (post(CHUNKED, b'a\r\n{"te'),), (BAD,), shut=True, alone=True),
    Case("half a size", (post(CHUNKED, b"a"),), (BAD,), shut=True, alone=True),
    Case("no last chunk", (post(CHUNKED, chunk(mark("no last chunk"))),), (BAD,), shut=True, alone=True),
    Case("a byte of a body now and then", (post(b"Content-Length: 99\r\n"), *[b"{"] * 98), (BAD,), shut=True, alone=True),
    Case(
        "no body after the word to go on",
        (post(b"Expect: 100-continue\r\nContent-Length: 9\r\n"),),
        (frozenset({100}), BAD),
        shut=True,
        alone=True,
    ),
)

CASES = SMUGGLING + CHUNKS + HEADS + LINES + HOSTS + TOKENS + BOMBS + FLOWS
