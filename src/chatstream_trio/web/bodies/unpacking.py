"""Bodies that come packed (``Content-Encoding``), a piece at a time.

A small body may have no end of content, and a large one none at all: whoever unpacks decides after
each piece whether to go on. This module knows no request and waits for nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from chatstream_trio.errors import InvalidRequest, UnsupportedEncoding

__all__ = ["PIECE", "Unpacker", "unpacker"]

PIECE = 2**16
"""Bytes that are unpacked at a time, at most."""
_SLICE = 2**12
"""Packed bytes that are looked at at a time: they may be hundreds of empty members."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
_PARAM = "Content-Encoding"


class Unpacker:
    """What is not packed."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what is in these bytes, in pieces, some of them empty.

        Raises:
            InvalidRequest: They are not what the header says.
        """
        yield data

    def end(self) -> None:
        """Say that this was all.

        Raises:
            InvalidRequest: It cannot have been.
        """


class _Deflated(Unpacker):
    """What is packed by zlib: one stream, or with gzip any number of them in a row."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _SLICE):
            left = data[at : at + _SLICE]
            full = False  # whether there may be more without another byte
            while left or full:
                stream = self._stream_for(left)
                try:
                    piece = stream.decompress(left, PIECE)
                except zlib.error as error:
                    raise self._broken(str(error)) from None
                yield piece
                full = len(piece) == PIECE and not stream.eof
                left = stream.unused_data if stream.eof else stream.unconsumed_tail

    def end(self) -> None:
        if self._stream is None or not self._stream.eof:
            raise self._broken("it is cut")

    def _stream_for(self, data: bytes) -> zlib._Decompress:
        if self._stream is None:
            self._stream = zlib.decompressobj(self._format(data))
        elif self._stream.eof:
            if self._name != "gzip":
                raise self._broken("there is something behind it")
            self._stream = zlib.decompressobj(_GZIP)
        return self._stream

    def _format(self, data: bytes) -> int:
        """``deflate`` should have the header of zlib; some clients send it without."""
        if self._name == "gzip":
            return _GZIP
        return _ZLIB if data[0] & 0x0F == 8 else _RAW

    def _broken(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"the body is not {self._name}, or broken: {why}", param=_PARAM)


def unpacker(encodings: Sequence[str]) -> Unpacker:
    """One for the values of the header.

    Raises:
        UnsupportedEncoding: There is none.
    """
    names = [name.strip().lower() for value in encodings for name in value.split(",")]
    match [name.removeprefix("x-") for name in names if name not in ("", "identity")]:
        case []:
            return Unpacker()
        case ["gzip" | "deflate" as name]:
            return _Deflated(name)
        case several:
            raise UnsupportedEncoding(
                f"a body may be packed by gzip or deflate, once; not by {', '.join(several)[:100]}",
                param=_PARAM,
            )
