"""Reads counted answers from an OpenAI door, `streams` at a time: `python -m tests.bench.programs.reading ORDER`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp


async def main(order: dict[str, Any]) -> dict[str, Any]:
    """`first_ms`: from sending a question to the first word of its answer; `lost`: pieces that did not come, or not in order."""
    first_ms: list[float] = []
    lost = 0
    headers = {"Authorization": f"Bearer {order['token']}"}
    said = json.dumps({"pieces": order["pieces"], "pause_ms": order["pause_ms"]})
    body = {"model": order["model"], "stream": True, "messages": [{"role": "user", "content": said}]}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), headers=headers) as session:

        async def stream(start: int) -> None:
            nonlocal lost
            await asyncio.sleep(start * order["pieces"] * order["pause_ms"] / 1e3 / order["streams"])  # spread over one answer
            for _ in range(order["answers"]):
                began = time.perf_counter()
                async with session.post(order["url"], json=body) as response:
                    assert response.status == 200, await response.text()
                    first, text = await _read(response)
                first_ms.append((first - began) * 1e3)
                lost += _missing(text, order["pieces"])

        began = time.perf_counter()
        await asyncio.gather(*map(stream, range(order["streams"])))
        return {"first_ms": first_ms, "lost": lost, "seconds": time.perf_counter() - began}


async def _read(response: aiohttp.ClientResponse) -> tuple[float, str]:
    """When the first word came, and the whole text. Raises AssertionError for an error in the middle."""
    first, text = 0.0, []
    async for line in response.content:
        if not line.startswith(b"data: {"):
            continue
        document = json.loads(line[6:])
        assert "error" not in document, document
        for choice in document["choices"]:
            if content := choice["delta"].get("content"):
                first = first or time.perf_counter()
                text.append(content)
    return first, "".join(text)


def _missing(text: str, pieces: int) -> int:
    """How many of the numbers are missing, double or at another's place."""
    if text == "".join(f"{n} " for n in range(pieces)):
        return 0
    said = text.split()
    return max(1, sum(number != str(n) for n, number in enumerate(said)) + abs(pieces - len(said)))


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(main(json.loads(sys.argv[1])))))
