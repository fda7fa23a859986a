"""How long does everybody stand still because of what one client sends?

A real server with the demo model, and one compute thread. A stream runs, and somebody asks
``/health`` every few milliseconds; meanwhile a stranger sends a body of up to four megabytes that
is costly in one way or another. For each body: what it was answered, the longest gap in the stream
and the longest wait for ``/health``, beside those of a quiet time of the same length.

    PYTHONPATH=src python benchmarks/stalls.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import trio
from attrs import define, field

SIZE = 3_900_000
"""Bytes of a large body, just below ``--max-body-bytes``."""
QUIET_SECONDS = 1.0
HEALTH_SECONDS = 0.005
PATH = "/v1/chat/completions"
HELLO = '"messages":[{"role":"user","content":"hello"}]'


def bodies() -> dict[str, list[bytes]]:
    """By name, the bodies that are sent at once."""

    def messages(text: str, count: int) -> str:
        roles = ("user", "assistant")
        each = (f'{{"role":"{roles[i % 2]}","content":"{text}"}}' for i in range(count))
        return f'{{"messages":[{",".join(each)}]}}'

    def filled(name: str, opening: str, item: str, closing: str) -> str:
        items = ",".join([item] * (SIZE // (len(item) + 1)))
        return f'{{{HELLO},"{name}":{opening}{items}{closing}}}'

    words = "a seat is a place for one who asks, and a turn is a token. "
    text = messages(words * (SIZE // len(words)), 1)
    bias = ",".join(f'"{i}":1' for i in range(100_000))
    stops = ",".join(f'"{"a" * (SIZE // 17)}{i}"' for i in range(16))
    one = {
        "one long text": text,
        "one long word": messages("a" * SIZE, 1),
        "10,000 messages": messages("hi", 10_000),
        "130,000 messages": messages("", 130_000),
        "one message, many parts": '{"messages":[{"role":"user","content":['
        + ",".join(['{"type":"text","text":"a"}'] * 130_000)
        + "]}]}",
        "2 million elements": filled("unknown", "[", "1", "]"),
        "a million objects": filled("metadata", '{"a":[', "{}", "]}"),
        "messages that are {}": f'{{"messages":[{",".join(["{}"] * (SIZE // 3))}]}}',
        "nested JSON": f'{{{HELLO},"unknown":{"[" * (SIZE // 2)}{"]" * (SIZE // 2)}}}',
        "16 long stop strings": f'{{{HELLO},"max_tokens":64,"stop":[{stops}]}}',
        "a million stop strings": filled("stop", "[", '"a"', "]"),
        "logit_bias of 100,000": f'{{{HELLO},"max_tokens":16,"logit_bias":{{{bias}}}}}',
        "stop_token_ids": filled("stop_token_ids", "[", "7", "]"),
        "a number of 4 MB": f'{{{HELLO},"seed":{"9" * SIZE}}}',
        "a role of 4 MB": f'{{"messages":[{{"role":"{"a" * SIZE}","content":"x"}}]}}',
    }
    found = {name: [body.encode()] for name, body in one.items()}
    four = ("one long text", "10,000 messages", "messages that are {}", "logit_bias of 100,000")
    found["these four at once"] = [found[name][0] for name in four]
    found["four long texts at once"] = 4 * found["one long text"]
    found["four times 10,000 messages"] = 4 * found["10,000 messages"]
    return found


@define
class Watch:
    """The longest waits of a time, in seconds."""

    gap: float = 0.0
    health: float = 0.0


@define
class House:
    """The server, somebody who reads a stream, and somebody who asks for ``/health``."""

    client: httpx.AsyncClient
    watch: Watch = field(factory=Watch)
    speaks: trio.Event = field(factory=trio.Event)

    async def read_streams(self) -> None:
        """Read one stream after the other, and note the longest gap within one."""
        body = {
            "messages": [{"role": "user", "content": "Tell me of the waiting room."}],
            "stream": True,
            "ignore_eos": True,
            "max_tokens": 1900,
        }
        while True:
            async with self.client.stream("POST", PATH, json=body) as response:
                last = None
                async for _ in response.aiter_raw():
                    now = trio.current_time()
                    if last is not None:
                        self.watch.gap = max(self.watch.gap, now - last)
                    last = now
                    self.speaks.set()

    async def ask_health(self) -> None:
        """Ask again and again, and note the longest wait."""
        while True:
            began = trio.current_time()
            (await self.client.get("/health")).raise_for_status()
            self.watch.health = max(self.watch.health, trio.current_time() - began)
            await trio.sleep(HEALTH_SECONDS)

    async def quiet(self) -> Watch:
        """What happens while nothing happens."""
        self.watch = Watch()
        await trio.sleep(QUIET_SECONDS)
        return self.watch

    async def attacked(self, bodies: list[bytes]) -> tuple[Watch, float, list[str]]:
        """What happens while these are sent and answered: waits, seconds, answers."""
        answers: list[str] = []

        async def send(body: bytes) -> None:
            response = await self.client.post(PATH, content=body, timeout=120)
            error = response.json().get("error") or {}
            answers.append(f"{response.status_code} {error.get('code') or ''}".strip())

        self.watch, began = Watch(), trio.current_time()
        async with trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(send, body)
        took = trio.current_time() - began
        await trio.sleep(0.2)  # what the answers leave behind counts as well
        return self.watch, took, answers


@contextmanager
def serving(flags: list[str]) -> Iterator[str]:
    """A server in a process of its own; the value is where it is."""
    command = [sys.executable, "-m", "chatstream_trio", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"Listening on (\S+)", line):
                    yield found[1]
                    return
            raise SystemExit("the server did not start")
        finally:
            process.terminate()


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[House]:
    """Somebody reads and somebody asks, all the time."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        trio.open_nursery() as nursery,
    ):
        house = House(client)
        nursery.start_soon(house.read_streams)
        nursery.start_soon(house.ask_health)
        await house.speaks.wait()
        yield house
        nursery.cancel_scope.cancel()


async def measure(url: str, rounds: int, only: str) -> None:
    """Print a row for each body: the medians over the rounds."""
    print("| what is sent | answered | s | stream: quiet, then ms | /health: quiet, then ms |")
    print("|---|---|---|---|---|")
    async with watched(url) as house:
        for name, sent in bodies().items():
            if only not in name:
                continue
            rows = []
            for _ in range(rounds):
                quiet = await house.quiet()
                attacked, took, answers = await house.attacked(sent)
                figures = (quiet.gap, attacked.gap, quiet.health, attacked.health)
                rows.append((took, *(1000 * figure for figure in figures)))
            took, before, gap, idle, health = map(statistics.median, zip(*rows, strict=True))
            said = json.dumps(sorted(set(answers)))[1:-1].replace('"', "")
            waits = f"{before:.0f} {gap:.0f} | {idle:.0f} {health:.0f}"
            print(f"| {name} | {said} | {took:.2f} | {waits} |", flush=True)


def main() -> None:
    """Measure a server that is started for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="bodies with this in their name")
    parser.add_argument("flags", nargs="*", help="flags of serve, behind --")
    options = parser.parse_args()
    with serving(options.flags) as url:
        trio.run(measure, url, options.rounds, options.only)


if __name__ == "__main__":
    main()
