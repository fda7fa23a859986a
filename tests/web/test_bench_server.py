"""The load generator against real servers on real sockets: a good one, a full one, broken ones."""

from __future__ import annotations

import functools
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from served import open_house

from chatstream_trio.bench import BenchOptions, BenchReport, Measurement, NoServer, run_bench
from conftest import GUARD

COMMAND = [sys.executable, "-m", "chatstream_trio", "bench"]


async def bench(url: str, **fields: Any) -> BenchReport:
    with trio.fail_after(GUARD):
        return await run_bench(BenchOptions(url, **fields))


async def test_a_closed_loop() -> None:
    """So many requests, by users who each have one connection; tokens by the server's count."""
    async with open_house(max_active=4) as house:
        measurement = Measurement(BenchOptions(house.served.urls[0], users=3, requests=20))
        with trio.fail_after(GUARD):
            await measurement.run()
        report = measurement.report()
        assert dict(report.outcomes) == {"done": 20, "refused": 0, "failed": 0, "unfinished": 0}
        assert report.tokens == 20 * 64
        assert dict(report.counted_by) == {"usage": 20}
        assert 1 <= report.chunks <= report.tokens
        assert report.model == "scripted"
        assert report.fairness is not None
        assert report.fairness > 0.8
        assert report.ttft_ms.count == 20
        assert measurement._connections.opened == 3
        await house.until(active=0, waiting=0)


async def test_an_open_loop() -> None:
    """Requests come when they come, by the clock of a seed."""
    async with open_house(max_active=8, max_waiting=50) as house:
        report = await bench(house.served.urls[0], rate=200.0, seconds=0.2, max_tokens=4)
        assert report.done == len(report.samples) > 10
        assert report.tokens == report.done * 4
        again = await bench(house.served.urls[0], rate=200.0, seconds=0.2, max_tokens=4)
        assert len(again.samples) == len(report.samples)


async def test_a_server_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 is counted by its code, and its user comes again after a pause."""
    monkeypatch.setattr("chatstream_trio.bench.measure.MOST_PAUSE", 0.1)
    async with open_house(max_active=1, max_waiting=0, pace=0.005) as house:
        report = await bench(house.served.urls[0], users=3, requests=9, warmup=0, max_tokens=20)
        assert report.outcomes["refused"] == report.errors["429 queue_full"] > 0
        assert report.done > 0
        assert report.done + report.outcomes["refused"] == 9
    for user in range(3):
        mine = [sample for sample in report.samples if sample.user == user]
        for one, following in itertools.pairwise(mine):
            assert one.ended is not None
            assert one.error is None or following.started - one.ended >= 0.09


async def test_without_usage_chunks_are_counted() -> None:
    """A server that does not count is no reason not to; the report says so."""
    async with open_house() as house:
        report = await bench(house.served.urls[0], requests=3, max_tokens=5, include_usage=False)
        assert dict(report.counted_by) == {"chunks": 3}
        assert report.tokens == report.chunks


# ---- broken servers

MODELS = b'{"data": [{"id": "broken"}]}'
Answer = Callable[[trio.SocketStream], Awaitable[None]]
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
TEXT = b'data: {"choices":[{"delta":{"content":"x "}}]}\n\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def says(data: bytes) -> Answer:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    return answer


async def hangs(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def broken_server(*answers: Answer) -> AsyncIterator[str]:
    """Answers each chat completion in its turn, and closes the connection."""
    turns = iter(answers)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            data = await stream.receive_some(2**16)
            if data.startswith(b"GET /v1/models "):
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(MODELS)}\r\n\r\n".encode()
                await stream.send_all(head + MODELS)
            elif data.startswith(b"GET "):
                await stream.send_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            elif data:
                await next(turns)(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatstream_trio.bench.measure.MOST_PAUSE", 0.0)


@pytest.mark.usefixtures("no_pause")
async def test_broken_servers_are_counted_and_the_bench_goes_on() -> None:
    """Cut in the middle, garbage, silence, a 500, no stream: each has its name."""
    good = says(SSE + b"\r\n" + TEXT + END)
    cut = says(SSE + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\ndata:")
    cases = {
        "cut_off": cut,
        "malformed_response": says(b"\x00\xff garbage\r\n\r\n"),
        "no_response": says(b""),
        "500 boom": says(
            b'HTTP/1.1 500 X\r\nContent-Length: 27\r\n\r\n{"error": {"code": "boom"}}'
        ),
        "404": says(b"HTTP/1.1 404 X\r\nContent-Length: 5\r\n\r\nsorry"),
        "not_a_stream": says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        "stream_fault": says(
            SSE + b"\r\n" + TEXT + b'data: {"error": {"code": "stream_fault"}}\n\n'
        ),
        "timeout": hangs,
    }
    events = says(SSE + b"\r\ndata: [1, 2\n\n")
    unended = says(SSE + b"\r\n" + TEXT)
    answers = [*cases.values(), events, unended, good]
    async with broken_server(*answers) as url:
        report = await bench(url, requests=len(answers), warmup=0, timeout=0.5)
    assert dict(report.errors) == {
        **dict.fromkeys(cases, 1),
        "malformed_response": 2,
        "cut_off": 2,
    }
    assert dict(report.outcomes) == {"done": 1, "refused": 0, "failed": 10, "unfinished": 0}
    assert report.tokens == 1


async def test_a_connection_that_was_closed_while_idle_is_no_failure() -> None:
    """A server may close what lies idle: the request goes out again, on a new connection."""
    good = says(SSE + b"Content-Length: %d\r\n\r\n" % len(TEXT + END) + TEXT + END)
    async with broken_server(*[good] * 4) as url:
        report = await bench(url, requests=4, warmup=0)
    assert report.done == 4


@pytest.mark.usefixtures("no_pause")
async def test_a_server_that_goes_away() -> None:
    """What comes after is counted as what it was: refused connections."""

    async def answer_and_end(stream: trio.SocketStream) -> None:
        await stream.send_all(SSE + b"\r\n" + TEXT + END)
        server.cancel()

    with trio.CancelScope() as server:
        async with broken_server(answer_and_end) as url:
            measurement = Measurement(BenchOptions(url, requests=3, warmup=0))
            with trio.CancelScope(shield=True), trio.fail_after(GUARD):
                await measurement.run()
    assert measurement.report().done == 1
    assert dict(measurement.report().errors) == {"econnrefused": 2}


async def test_a_server_without_models_must_be_told_which() -> None:
    """One line that says what to do; one that names a model need not be asked."""
    good = says(SSE + b"\r\n" + TEXT + END)
    async with broken_server(good, good) as url:
        with pytest.raises(NoServer, match="--model"):
            await bench(url + "/elsewhere", requests=1, warmup=0)
        report = await bench(url + "/elsewhere", requests=1, warmup=0, model="mine")
    assert (report.model, report.done) == ("mine", 1)


async def test_a_measurement_that_is_cancelled_has_a_report() -> None:
    """What is running counts as far as it came, and is called unfinished."""
    async with open_house() as house:
        url = house.served.urls[0]
        options = BenchOptions(url, users=2, requests=9, warmup=0, max_tokens=100_000)
        measurement = Measurement(options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measurement.run)
            with trio.fail_after(GUARD):
                while sum(len(sample.chunks) for sample in measurement.samples) < 10:
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        report = measurement.report()
        assert report.outcomes["unfinished"] == 2
        assert report.tokens >= 10
        assert dict(report.counted_by) == {"chunks": 2}
        await house.until(active=0, waiting=0)


# ---- the command


async def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(60):
        return await trio.run_process(
            [*COMMAND, *arguments], capture_stdout=True, capture_stderr=True, check=False
        )


async def test_the_command(tmp_path: Path) -> None:
    """A table on stdout, nothing on stderr, JSON and a picture where they were wanted."""
    file, picture = tmp_path / "report.json", tmp_path / "report.png"
    flags = ["--users", "2", "--requests", "6", "--max-tokens", "5", "--json", str(file)]
    if find_spec("matplotlib"):
        flags += ["--plot", str(picture)]
    async with open_house() as house:
        result = await run(house.served.urls[0], *flags)
    assert (result.returncode, result.stderr) == (0, b"")
    table = result.stdout.decode()
    for words in ("2 users", "usage (6)", "time to first token", "fairness"):
        assert words in table
    value = json.loads(file.read_text())
    assert value["outcomes"]["done"] == 6
    assert value["tokens"] == 30
    assert value["options"]["max_tokens"] == 5
    assert picture.exists() == bool(find_spec("matplotlib"))


async def test_ctrl_c_prints_what_was_measured() -> None:
    """In the middle of an answer, too; the exit code is a shell's for an interrupt."""
    async with open_house() as house:
        command = [*COMMAND, house.served.urls[0], "--warmup", "0", "--max-tokens", "100000"]
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with trio.fail_after(60):
            while not any(s["completion_tokens"] for s in (await house.status())["streams"]):
                await trio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert process.stderr is not None
            table = b"".join([data async for data in process.stdout]).decode()
            assert await process.wait() == 130
        assert b"".join([data async for data in process.stderr]) == b""
        assert "unfinished" in table
        assert "chunks (1)" in table


async def test_nobody_there_is_one_line_and_code_1() -> None:
    """And a wrong flag one line and code 2, before anything is sent."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        for code, words, *flags in [
            (1, "no server answers"),
            (2, "exclude", "--users", "2", "--rate", "3"),
            (2, "users", "--users", "0"),
            (2, "--nonsense", "--nonsense", "1"),
            (2, "plot", "--plot", "report.doc"),
            (2, "folder", "--json", "/no/such/folder/report.json"),
            (2, "prompts", "--prompts", "/no/such/file"),
        ]:
            result = await run(url, *flags)
            assert result.returncode == code
            (line,) = result.stderr.decode().splitlines()
            assert words in line


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, before anything is measured."""
    from chatstream_trio.bench import plot
    from chatstream_trio.errors import SettingsError

    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"chatstream-trio\[bench\]"):
        plot.check(Path("report.png"))
