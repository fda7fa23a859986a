"""The parts of the load generator that need no server: figures, parsing, schedules, options."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chatstream_trio.bench import BenchOptions, BenchReport, Sample, Spread
from chatstream_trio.bench.chunks import EventSplitter, data_of, error_in, read_chunk
from chatstream_trio.bench.client import take_chunk
from chatstream_trio.bench.figures import jain, percentile
from chatstream_trio.bench.http import (
    Address,
    ConnectionEndedError,
    Head,
    MalformedResponseError,
    Reader,
)
from chatstream_trio.bench.report import as_json, as_table, make_report
from chatstream_trio.bench.workload import arrivals, body_of, prompt_maker
from chatstream_trio.errors import SettingsError

# ---- figures


def test_percentiles_are_values_that_were_seen() -> None:
    """No mean of two values, and never beyond the last one."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, q) for q in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1, 51, 91, 100, 100]
    assert percentile([7.0], 0.5) == 7
    assert Spread.of(n / 1000 for n in range(1, 101)) == Spread(100, 51, 91, 100)
    assert Spread.of([]) == Spread(0, None, None, None)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_jains_index_is_between_one_and_one_over_n(shares: list[float]) -> None:
    """1 when all have the same, 1/n when one has everything; nothing at all is not fair."""
    index = jain(shares)
    assert index == 0 or 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9
    assert jain([3.0] * len(shares)) == pytest.approx(1)
    assert jain([5.0] + [0.0] * (len(shares) - 1)) == pytest.approx(1 / len(shares))
    assert jain([0.0, 0.0]) == 0


# ---- events and chunks

STREAM = (
    b": queued position=1\n\n"
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"\xe5\xb8\xad"},"finish_reason":null}]}\r\n\r\n'
    b"event: x\rdata: {}\r\r"
    b"data: [DONE]\n\n"
)
DATA = [
    b"",
    b'{"choices":[{"delta":{"role":"assistant"}}]}',
    b'{"choices":[{"delta":{"content":"\xe5\xb8\xad"},"finish_reason":null}]}',
    b"{}",
    b"[DONE]",
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_found_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    """In the middle of a character, of a CRLF, of a blank line."""
    edges = [0, *sorted(cuts), len(STREAM)]
    splitter = EventSplitter()
    events: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        events += splitter.feed(STREAM[start:end])
    assert [data_of(event) for event in events] == DATA


def sample(**fields: Any) -> Sample:
    return Sample(0, 0.0, 0.0, **fields)


def test_tokens_are_the_servers_count_and_gaps_are_between_chunks() -> None:
    """Several tokens in a chunk distort neither; a chunk without text is no chunk."""
    seen = sample()
    for at, data in enumerate(
        [
            b'{"choices":[{"delta":{"role":"assistant","content":""}}]}',
            b'{"choices":[{"delta":{"content":"one two three "}}]}',
            b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}',
            b'{"choices":[{"delta":{"content":"four "},"finish_reason":null}],"usage":null}',
            b'{"choices":[{"delta":{},"finish_reason":"stop"}]}',
        ]
    ):
        take_chunk(data, float(at), seen)
    assert (seen.tokens, seen.chunks, seen.gaps, seen.ttft) == (3, [1, 2, 3], [1, 1], 1)
    usage = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":40}}'
    take_chunk(usage, 5.0, seen)
    assert (seen.tokens, seen.prompt_tokens, seen.finish) == (40, 5, "stop")


def test_errors_have_a_code_in_whatever_shape_they_come() -> None:
    """In an event or in a body; what is not JSON is no reason to stop."""
    seen = sample()
    take_chunk(b'{"error": {"message": "no", "code": null, "type": "server_error"}}', 0.0, seen)
    assert seen.error == "server_error"
    assert error_in(b'{"error": {"code": 42}}', "else") == "42"
    assert error_in(b'{"error": "too_many_requests"}', "else") == "too_many_requests"
    assert error_in(b'{"detail": []}', "else") == "else"
    assert error_in(b"[\xff", "else") == "else"
    for garbage in (b"{", b"[]", b'{"choices": 7}', b'{"choices": [{"delta": "x"}]}', b"\xff"):
        with pytest.raises(MalformedResponseError):
            read_chunk(garbage)


# ---- HTTP


def bites(data: bytes, size: int) -> Callable[[], Awaitable[bytes]]:
    """A connection that gives so many bytes at a time."""
    pieces = iter([data[at : at + size] for at in range(0, len(data), size)])

    async def receive() -> bytes:
        return next(pieces, b"")

    return receive


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n"
)
END = b"0\r\nTrailer: x\r\n\r\n"
SIZED = b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\nRetry-After: 7\r\n\r\nfull"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_responses_follow_each_other_on_one_connection(size: int) -> None:
    """Chunked, with trailers; with a length; after a provisional one; until the end."""
    until_end = b"HTTP/1.0 200 OK\r\n\r\nthe rest"
    hundred = b"HTTP/1.1 100 Continue\r\n\r\n"
    reader = Reader(bites(CHUNKED + END + hundred + SIZED + until_end, size))
    assert (await reader.head()).status == 200
    assert [await reader.part(), await reader.part(), await reader.part()] == [
        b"abc",
        b"0123456789",
        b"",
    ]
    assert reader.reusable
    assert await reader.head() == Head(429, {"content-length": "4", "retry-after": "7"})
    assert not reader.reusable
    assert await reader.body() == b"full"
    assert reader.reusable
    await reader.head()
    assert await reader.body() == b"the rest"
    assert not reader.reusable


async def test_a_connection_that_the_server_will_close_is_not_used_again() -> None:
    """It says so in the response."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    reader = Reader(bites(head + b"ok", 1000))
    await reader.head()
    assert await reader.body() == b"ok"
    assert not reader.reusable


@pytest.mark.parametrize("head", [b"", CHUNKED, SIZED[:-1], CHUNKED + b"5\r\nab"])
async def test_a_connection_that_ends_too_early(head: bytes) -> None:
    """It is told apart from a body that is over."""
    reader = Reader(bites(head, 1000))
    with pytest.raises(ConnectionEndedError):  # noqa: PT012
        await reader.head()
        await reader.body()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-5\r\nabc",
        CHUNKED + b"ffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"x" * 200_000,
    ],
)
async def test_what_is_not_http_is_said_to_be_so(data: bytes) -> None:
    """And nothing is waited for, or kept, without bound."""
    reader = Reader(bites(data, 1000))
    with pytest.raises(MalformedResponseError):  # noqa: PT012
        await reader.head()
        await reader.body()


def test_addresses() -> None:
    """With and without /v1, with and without a port, IPv6."""
    assert Address.of("http://localhost:81") == Address("localhost", 81, "/v1")
    assert Address.of("https://h/api/v1/") == Address("h", 443, "/api/v1", secure=True)
    assert Address.of("https://h").authority == "h"
    assert Address.of("http://[::1]:81/v1").authority == "[::1]:81"


# ---- workload


def test_arrivals_are_a_poisson_process_with_a_seed() -> None:
    """The same again for the same seed; the gaps are exponential: deviation equals mean."""
    one = list(itertools.islice(arrivals(50, random.Random(3)), 4000))
    assert one == list(itertools.islice(arrivals(50, random.Random(3)), 4000))
    gaps = [b - a for a, b in itertools.pairwise([0.0, *one])]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 50, rel=0.1)
    assert deviation == pytest.approx(mean, rel=0.1)


def test_prompts(tmp_path: Path) -> None:
    """Made-up ones have so many words and are never alike; those of a file come in turn."""
    prompt = prompt_maker(BenchOptions(prompt_tokens=20))
    assert len(prompt(0).split()) == 20
    assert len({prompt(n) for n in range(50)}) == 50
    assert prompt(7) == prompt_maker(BenchOptions(prompt_tokens=20))(7)
    file = tmp_path / "prompts.txt"
    file.write_text("one\u2028more\n", "utf-8")
    assert prompt_maker(BenchOptions(prompts=file))(0) == "one\u2028more"
    file.write_text("one\n\ntwo\n")
    prompt = prompt_maker(BenchOptions(prompts=file))
    assert [prompt(n) for n in range(3)] == ["one", "two", "one"]
    file.write_text("\n")
    for bad in (file, tmp_path / "missing"):
        with pytest.raises(SettingsError, match="prompts"):
            prompt_maker(BenchOptions(prompts=bad))


def test_a_body_has_only_what_was_asked_for() -> None:
    """Some servers refuse a field that they do not know."""
    plain = body_of(BenchOptions(include_usage=False), None, "hi")
    assert plain.keys() == {"messages", "max_tokens", "stream"}
    whole = body_of(BenchOptions(temperature=0, ignore_eos=True), "m", "hi")
    assert whole["stream_options"] == {"include_usage": True}
    assert (whole["temperature"], whole["ignore_eos"], whole["model"]) == (0, True, "m")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"users": 0}, "users"),
        ({"users": 2, "rate": 1.0}, "rate"),
        ({"requests": 2, "seconds": 1.0}, "seconds"),
        ({"timeout": 0.0}, "timeout"),
        ({"url": "localhost:8000"}, "url"),
    ],
)
def test_a_wrong_option_is_named(fields: dict[str, Any], param: str) -> None:
    """Bad input: an error that names the field."""
    with pytest.raises(SettingsError, match=param) as raised:
        BenchOptions(**fields)
    assert raised.value.param == param


# ---- the report


def done(user: int, usage: int | None, *chunks: float) -> Sample:
    return Sample(
        user,
        0.0,
        0.0,
        status=200,
        chunks=list(chunks),
        usage=usage,
        finish="stop",
        ended=chunks[-1],
    )


def report_of(samples: list[Sample], **fields: Any) -> BenchReport:
    options = BenchOptions(**{"users": 2, "api_key": "secret", **fields})
    return make_report(options, "m", samples, seconds=10.0, cpu_seconds=1.0)


def test_what_is_counted() -> None:
    """Whole answers, and unfinished ones as far as they came; broken ones are worth nothing."""
    refused = Sample(0, 0.0, 0.0, status=429, error="429 queue_full", ended=0.1)
    broken = evolve(done(0, None, 1.0, 2.0), error="cut_off")
    report = report_of(
        [
            done(0, 40, 1.0, 1.5),
            done(1, None, 2.0, 3.0),
            refused,
            broken,
            evolve(done(0, None, 4.0), ended=None),
        ]
    )
    assert dict(report.outcomes) == {"done": 2, "refused": 1, "failed": 1, "unfinished": 1}
    assert dict(report.errors) == {"429 queue_full": 1, "cut_off": 1}
    assert dict(report.counted_by) == {"usage": 1, "chunks": 2}
    assert (report.tokens, report.chunks) == (40 + 2 + 1, 2 + 2 + 1)
    assert (report.tokens_per_second, report.tokens_per_second_per_user) == (4.3, 2.15)
    assert report.fairness == pytest.approx(jain([41, 2]), abs=1e-4)
    assert (report.ttft_ms.count, report.gap_ms.p99) == (4, 1000)


def test_an_open_loop_has_no_users() -> None:
    """So nobody's share can be fair; how late we were is said instead."""
    report = report_of([evolve(done(0, 4, 1.0), scheduled=-0.5)], users=None, rate=3.0)
    assert report.fairness is None
    assert report.tokens_per_second_per_user is None
    assert report.lag_ms.p50 == 500


def test_the_table_and_the_json_say_it(tmp_path: Path) -> None:
    """Errors by code, how tokens were counted, and never the key."""
    report = report_of([done(0, 40, 1.0, 1.5), Sample(1, 0, 0, status=500, error="500", ended=1.0)])
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    console.print(as_table(report))
    text = console.export_text()
    for words in ("usage (1)", "1000.0", "4.0", "500", "2 users"):
        assert words in text
    value = as_json(report)
    assert value["options"]["users"] == 2
    assert "secret" not in str(value)
    assert "samples" not in value
