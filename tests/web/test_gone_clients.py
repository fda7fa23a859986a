"""Law 9 on real sockets: who hangs up leaves nothing behind, in whatever phase they were."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import trio
from served import House, chat_body, open_house, raw_request

from chatstream_trio.web.transport.server import open_connections
from conftest import GUARD, wait_until

pytestmark = pytest.mark.trio

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/api/chat"]
"""Of the APIs that answer, each in its dialect."""
LONG = " ".join(f"word{i}" for i in range(3000))


def body_for(path: str, text: str, **fields: Any) -> dict[str, Any]:
    """The same for each API."""
    if "responses" in path:
        return {"input": text, **fields}
    if path == "/v1/completions":
        return {"prompt": text, "max_tokens": 10**5, **fields}
    return chat_body(text, **({"max_tokens": 10**5} if "messages" in path else {}), **fields)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("phase", ["waiting", "prefilling", "decoding"])
async def test_a_client_that_hangs_up(phase: str, stream: bool, how: str, path: str) -> None:
    """Its place or seat is free, and the next request is served."""
    async with open_house(max_active=1, max_waiting=1, prefill_chunk=4) as house:
        host = await _occupy(house) if phase == "waiting" else None
        client = await house.served.connect()
        text = LONG if phase == "prefilling" else "a b"
        await client.send(raw_request(body_for(path, text, stream=stream), path=path))
        if phase == "waiting":
            await house.until(waiting=1)
        else:
            await _until_state(house, phase)
        client.leave(how)
        if host is not None:
            await house.until(active=1, waiting=0)
            host.leave("rst")
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])
        assert (await house.ask(max_tokens=1)).status_code == 200


async def _occupy(house: House) -> Any:
    """Take the one seat, for ever."""
    client = await house.served.connect()
    await client.send(raw_request(chat_body("host", stream=True)))
    await house.until(active=1)
    return client


async def _until_state(house: House, state: str) -> None:
    with trio.fail_after(GUARD):
        while True:
            streams = (await house.status())["streams"]
            if any(s["state"] == state for s in streams):
                return
            await trio.sleep(0.005)


async def test_a_storm_of_hang_ups_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """200 clients leave at random moments, by FIN and RST: all that they held is there again.

    Nor does it leave anything in the log: a client that is gone is no error.
    """
    chance = random.Random(5)
    async with open_house(max_active=4, max_waiting=60, pace=0.001, prefill_chunk=16) as house:
        assert (await house.ask(max_tokens=1)).status_code == 200
        before = await house.until(active=0)
        threads = threading.active_count()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(_come_and_go, house, chance.random(), chance)
                await trio.sleep(0.002)
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])
        await wait_until(lambda: open_connections() <= 1)  # our own keep-alive connection
        after = await house.until(tasks=before["tasks"])
        assert after["kv_rows"] == before["kv_rows"]
        assert threading.active_count() <= threads + 2  # idle workers of the prompt's limiter
        assert not [record for record in caplog.records if record.name.startswith("chatstream")]
        response = await house.ask(max_tokens=2)
        assert response.json()["choices"][0]["message"]["content"] == "one two "


async def _come_and_go(house: House, patience: float, chance: random.Random) -> None:
    client = await house.served.connect()
    text = " ".join(["w"] * chance.choice([1, 100, 1000]))
    path = chance.choice(PATHS)
    await client.send(raw_request(body_for(path, text, stream=chance.random() < 0.5), path=path))
    with trio.move_on_after(patience * 0.3):
        while await client.receive():
            pass
    client.leave(chance.choice(["fin", "rst", "half-close"]))


async def test_a_client_that_does_not_read_holds_no_seat() -> None:
    """Law 10: its stream runs to its end beside the others, and its seat goes on."""
    async with open_house(max_active=1, max_waiting=1, pace=0, prefill_chunk=4096) as house:
        client = await house.served.connect(small=True)
        word = "x" * 4000
        await client.send(raw_request(chat_body(word, max_tokens=3000, stream=True)))
        await client.until(b"\r\n\r\n")  # it has begun, and from now on nobody reads
        await house.until(active=0, waiting=0, kv_rows=0)
        assert (await house.ask(max_tokens=1)).status_code == 200
        with trio.fail_after(GUARD * 2):
            said = b""
            while b"[DONE]" not in said[-200:]:
                said += await client.receive()
        assert said.count(b"x" * 4000) == 3000
