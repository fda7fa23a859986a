"""Bodies that come packed: read as they come, bounded by what is in them."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from typing import Any

import pytest
import trio
from served import chat_body, open_house
from test_bodies import chunk, post
from transport_app import MOST, App

from chatstream_trio import InvalidRequest, UnsupportedEncoding
from chatstream_trio.web.bodies import body_reader, unpacking
from chatstream_trio.web.bodies.unpacking import PIECE, unpacker

pytestmark = pytest.mark.trio

TEXT = random.Random(5).randbytes(30_000) * 3


def raw_deflate(data: bytes) -> bytes:
    """Without the header of zlib, as some clients understand the word."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress(TEXT),
    "GZip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "gzip, identity": gzip.compress(TEXT),
    "gzip ": gzip.compress(TEXT[:7]) + gzip.compress(b"") + gzip.compress(TEXT[7:]),
    "deflate": zlib.compress(TEXT),
    "deflate ": raw_deflate(TEXT),
    "deflate, ": zlib.compress(TEXT, 0),
    "identity": TEXT,
    "": TEXT,
}
BOMB = gzip.compress(bytes(50_000_000))


def unpack(encoding: str, data: bytes, slices: int = 2**16) -> bytes:
    """All of it, given so many bytes at a time."""
    it = unpacker([encoding] if encoding else [])
    parts = [data[at : at + slices] for at in range(0, len(data), slices)]
    unpacked = b"".join(piece for part in parts for piece in it.feed(part))
    it.end()
    return unpacked


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("slices", [1, 1000, 2**20])
async def test_what_is_packed_is_unpacked(encoding: str, slices: int) -> None:
    """However it is cut on the way."""
    assert unpack(encoding.strip(" ,"), PACKED[encoding], slices) == TEXT


@pytest.mark.parametrize("chunked", [True, False])
async def test_over_the_wire(serving: Any, chunked: bool) -> None:
    """Chunked or with its length; the connection goes on."""
    async with serving(App()) as server:
        client = await server.connect()
        for encoding, data in PACKED.items():
            header = f"Content-Encoding: {encoding}"
            await client.send(post("/read", header, length=None if chunked else len(data)))
            await client.send(chunk(data) + b"0\r\n\r\n" if chunked else data)
            response = await client.response()
            assert (response.status, response.body) == (200, b"%d" % len(TEXT))


async def test_a_packed_question() -> None:
    """The endpoint reads it as any other."""
    async with open_house() as house:
        answer = await house.client.post(
            "/v1/chat/completions",
            content=gzip.compress(json.dumps(chat_body("a b", max_tokens=2)).encode()),
            headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
        )
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "a b "


GOOD = gzip.compress(TEXT)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", TEXT),
        ("gzip", b"{}"),
        ("gzip", b""),
        ("gzip", GOOD[:-1]),
        ("gzip", GOOD[:100]),
        ("gzip", GOOD[:5]),
        ("gzip", GOOD + b"x"),
        ("gzip", GOOD + GOOD[:40]),
        ("gzip", GOOD[:-8] + b"\0" * 8),
        ("gzip", GOOD[:50] + b"\xff" + GOOD[51:-9] + b"\xff" + GOOD[-8:]),
        ("gzip", zlib.compress(TEXT)),
        ("deflate", b""),
        ("deflate", b"{}"),
        ("deflate", zlib.compress(TEXT)[:-2]),
        ("deflate", zlib.compress(TEXT) + b"x"),
        ("deflate", raw_deflate(TEXT)[:-3]),
        ("deflate", GOOD),
    ],
)
async def test_what_is_broken_is_refused(encoding: str, data: bytes) -> None:
    """By the name of the header, wherever it is broken."""
    for slices in (1, 2**20):
        with pytest.raises(InvalidRequest, match=encoding) as error:
            unpack(encoding, data, slices)
        assert error.value.param == "Content-Encoding"
        assert not isinstance(error.value, UnsupportedEncoding)


async def test_refusals_over_the_wire() -> None:
    """400 for what is broken, 415 for what nobody here can unpack, which says what would do."""
    async with open_house() as house:
        for encoding, status, code in [
            ("gzip", 400, "invalid_value"),
            ("br", 415, "unsupported_encoding"),
            ("zstd", 415, "unsupported_encoding"),
            ("gzip, gzip", 415, "unsupported_encoding"),
            ("x" * 5000, 415, "unsupported_encoding"),
        ]:
            answer = await house.client.post(
                "/v1/chat/completions", content=b"{}", headers={"Content-Encoding": encoding}
            )
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (status, code)
            assert error["param"] == "Content-Encoding"
            assert len(error["message"]) < 300
            accepted = answer.headers.get("accept-encoding")
            assert accepted == ("gzip, deflate" if status == 415 else None)


@pytest.mark.parametrize("length", [len(BOMB), None])
async def test_a_bomb_is_a_413(serving: Any, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """What is in it counts, and no more of it is unpacked than that."""
    seen: list[int] = []

    def watch(encodings: list[str]) -> Any:
        it = unpacker(encodings)
        feed = it.feed

        def count(data: bytes) -> Any:
            for piece in feed(data):
                seen.append(len(piece))
                yield piece

        it.feed = count  # type: ignore[method-assign]
        return it

    monkeypatch.setattr(body_reader, "unpacker", watch)
    async with serving(App()) as server:
        client = await server.connect()
        await client.send(post("/read", "Content-Encoding: gzip", length=length))
        await client.send(BOMB if length else chunk(BOMB) + b"0\r\n\r\n")
        assert (await client.response()).status == 413
        assert sum(seen) <= MOST + PIECE
        await client.get("/plain")
        assert (await client.response()).body == b"hello"


async def test_the_event_loop_goes_on() -> None:
    """Much out of little, and little out of much: there is a pause at least every so often."""
    for data in (BOMB, gzip.compress(b"") * 10_000, gzip.compress(b"x", 0) * 10_000):
        pieces = [len(piece) for piece in unpacker(["gzip"]).feed(data)]
        assert max(pieces) <= PIECE
        assert len(pieces) >= len(data) / 4096


async def test_many_members_are_not_copied_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind each of them zlib copies the rest of what it was given: that is never much."""
    given: list[int] = []

    class Counted:
        def __init__(self, wbits: int) -> None:
            self.real = zlib.decompressobj(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            given.append(len(data))
            return self.real.decompress(data, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    class Zlib:
        error = zlib.error
        decompressobj = Counted

    monkeypatch.setattr(unpacking, "zlib", Zlib)
    data = gzip.compress(b"") * 10_000
    assert unpack("gzip", data, 2**20) == b""
    assert len(given) >= 10_000
    assert max(given) <= 2**12


async def test_a_pause_is_a_checkpoint(serving: Any) -> None:
    """Somebody else is served while a body is unpacked."""
    app = App()
    async with serving(app, max_body_bytes=2**23) as server:
        client, other = await server.connect(), await server.connect()
        data = gzip.compress(b"") * (MOST // 20)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await trio.lowlevel.checkpoint()
                ticks += 1

        await client.send(post("/unpack-later", "Content-Encoding: gzip", length=len(data)))
        assert (await client.response()).status == 404
        await other.send(post("/read", "Content-Encoding: gzip", length=len(data)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await other.send(data)
            assert (await other.response()).body == b"0"
            nursery.cancel_scope.cancel()
        assert ticks > len(data) / 4096


async def test_packed_bytes_are_bounded_as_well(serving: Any) -> None:
    """However little is in them."""
    async with serving(App()) as server:
        client = await server.connect()
        await client.send(post("/read", "Content-Encoding: gzip"))
        for _ in range(8):
            await client.send(chunk(gzip.compress(b"") * 1000))
        await client.send(b"0\r\n\r\n")
        assert (await client.response()).status == 413
